"""The catalogue: every sentence a person reads, in Chinese and English, by key.

A key is ``noun.rest``; it stands in ``<noun>.toml`` beside this file as ``[rest]`` with ``zh`` and ``en``, each one string or
``[sentence, hint]``. Fields are filled with ``str.format``; a list field is joined with commas, a field or item ``{"key": …, "fields": {…}}``
is a sentence itself and said in the same language. Files are read when first needed.
"""

from __future__ import annotations

import os
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, cast

__all__ = ["LANGS", "hint", "keys", "language", "say"]

LANGS = ("zh", "en")
HERE = Path(__file__).parent


@cache
def _noun(noun: str) -> dict[str, dict[str, tuple[str, str]]]:
    path = HERE / f"{noun}.toml"
    if not path.is_file():
        return {}
    table: dict[str, dict[str, tuple[str, str]]] = {}
    for rest, by_lang in tomllib.loads(path.read_text(encoding="utf-8")).items():
        table[rest] = {lang: (v, "") if isinstance(v, str) else (v[0], v[1]) for lang, v in by_lang.items()}
    return table


def keys() -> dict[str, dict[str, tuple[str, str]]]:
    """Every key with its (sentence, hint) by language."""
    return {f"{p.stem}.{rest}": by for p in sorted(HERE.glob("*.toml")) for rest, by in _noun(p.stem).items()}


def language(wanted: str | None = None) -> str:
    """``zh`` or ``en``: the wanted one (``zh-CN,zh;q=0.9`` is understood), else ``WENFANG_LANG``, else ``LANG``, else English.

    >>> language("zh-CN,en;q=0.8"), language("fr")
    ('zh', 'en')
    """
    if wanted is None:
        wanted = os.environ.get("WENFANG_LANG") or os.environ.get("LC_ALL") or os.environ.get("LANG") or "en"
    return "zh" if wanted.lower().startswith("zh") else "en"


def _fill(template: str, fields: dict[str, Any], lang: str | None) -> str:
    return template.format(**{k: _said(v, lang) for k, v in fields.items()}) if template else ""


def _said(value: Any, lang: str | None) -> Any:
    if isinstance(value, (list, tuple)):
        return ", ".join(str(_said(v, lang)) for v in cast("list[Any]", value))
    if isinstance(value, dict):
        said = cast("dict[str, Any]", value)
        return say(said["key"], lang, **said["fields"]) if set(said) == {"key", "fields"} else said
    return value


def _entry(key: str, lang: str | None) -> tuple[str, str]:
    noun, _, rest = key.partition(".")
    by = _noun(noun).get(rest)
    if by is None:
        return key, ""
    return by[language(lang)]


def say(key: str, lang: str | None = None, /, **fields: Any) -> str:
    """The sentence of ``key``, filled; an unknown key is shown as it is (a test keeps that from happening).

    >>> say("slice.column", "en", column="by", value={"key": "slice.latin", "fields": {}})
    'by = mostly Latin letters'
    """
    return _fill(_entry(key, lang)[0], fields, lang)


def hint(key: str, lang: str | None = None, /, **fields: Any) -> str:
    """The next step of ``key``, filled; empty if it has none."""
    return _fill(_entry(key, lang)[1], fields, lang)
