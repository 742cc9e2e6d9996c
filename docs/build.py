"""Writes the generated pages of ``docs/reference/``: operations, errors, settings. ``tests/test_docs.py`` keeps them up to date."""

import sys
from pathlib import Path

from wenfang.core.settings import Settings
from wenfang.core.words import keys
from wenfang.studio import operations

HERE = Path(__file__).parent / "reference"


def operations_page() -> str:
    rows = [f"| `{op.name}` | `{op.http}` | `{op.permission}` | {'job' if op.long else ''} | {op.summary} |" for op in sorted(operations().values(), key=lambda o: o.name)]
    head = [
        "# Operations",
        "",
        "Each is a command `wenfang NOUN VERB`, a route, and a method `studio.NOUN.VERB(...)`; made from the operation table.",
        "",
        "| operation | HTTP | permission | long | what |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *rows, ""])


def errors_page() -> str:
    lines = [
        "# Error codes",
        "",
        "Codes are stable. The sentence is said in the reader's language; `{…}` is filled with the offending value.",
        "",
        "| code | what (en / zh) | what to do (en / zh) |",
        "|---|---|---|",
    ]
    for code, by in sorted(keys().items()):
        if by["en"][1]:
            cells = [f"{by['en'][i]}<br>{by['zh'][i]}".replace("|", "\\|").replace("\n", " ") for i in (0, 1)]
            lines.append(f"| `{code}` | {cells[0]} | {cells[1]} |")
    return "\n".join([*lines, ""])


def settings_page() -> str:
    lines = [
        "# Settings",
        "",
        "`wenfang.toml` in the home, or the variable; `wenfang config` shows what is in force and why.",
        "",
        "| key | variable | default | meaning |",
        "|---|---|---|---|",
    ]
    for name, section in Settings.model_fields.items():
        for key, field in section.annotation.model_fields.items():
            lines.append(
                f"| `{name}.{key}` | `WENFANG_{name}__{key}`".upper().replace(f"`{name}.{key}`".upper(), f"`{name}.{key}`") + f" | `{field.default}` | {field.description} |"
            )
    return "\n".join([*lines, ""])


PAGES = {"operations.md": operations_page, "errors.md": errors_page, "settings.md": settings_page}


def stale() -> list[str]:
    """Pages whose file differs from what would be written now."""
    return [name for name, page in PAGES.items() if not (HERE / name).is_file() or (HERE / name).read_text(encoding="utf-8") != page()]


if __name__ == "__main__":
    HERE.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")
    sys.stdout.write(f"wrote {', '.join(PAGES)}\n")
