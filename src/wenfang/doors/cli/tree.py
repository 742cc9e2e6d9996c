"""The command tree: one command for each operation, its flags made from the request's fields."""

from __future__ import annotations

import json
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Union, cast, get_args, get_origin

import click

from wenfang.core.errors import Invalid, WenfangError
from wenfang.core.operation import Operation
from wenfang.core.ports import Cancelled
from wenfang.core.words import say
from wenfang.studio import operations

from .session import open_studio, show

__all__ = ["create_cli", "main"]

USAGE = {"http.bad-request", "http.bad-json", "http.not-an-object", "cli.bad-duration", "cli.not-utf8", "cli.no-input"}
"""Errors of the words typed, not of the work: exit code 2."""
HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 120}


class Group(click.Group):
    """A group that offers the nearest names."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which ones are near."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as e:
            from wenfang.core.registry import nearest

            raise click.UsageError(say("cli.no-command", name=args[0], near=nearest(args[0], self.list_commands(ctx))), ctx) from e


def create_cli() -> click.Group:
    """The whole tree."""
    from . import shortcuts
    from .deploy import DEPLOY

    root = Group(
        "wenfang",
        context_settings=HELP,
        help=say("cli.root"),
        params=[click.Option(["--lang"], type=click.Choice(["zh", "en"]), expose_value=False, is_eager=True, callback=_set_language, help=say("cli.lang"))],
    )
    groups: dict[str, Group] = {}
    for op in operations().values():
        if op.noun not in groups:
            groups[op.noun] = Group(op.noun, help=say(f"noun.{op.noun}"), context_settings=HELP)
            root.add_command(groups[op.noun])
        groups[op.noun].add_command(_command(op))
    for command in (*shortcuts.COMMANDS, DEPLOY):
        root.add_command(command)
    return root


def _set_language(_: click.Context, __: click.Parameter, value: str | None) -> None:
    if value:
        os.environ["WENFANG_LANG"] = value


WHERE: list[click.Parameter] = [
    click.Option(["--home"], type=click.Path(), help="home folder; WENFANG_HOME, else ./wenfang-home"),
    click.Option(["--server"], envvar="WENFANG_SERVER", help="URL of a remote studio; its key in WENFANG_API_KEY or --api-key"),
    click.Option(["--api-key"], envvar="WENFANG_API_KEY", help="key for --server"),
    click.Option(["--json", "as_json"], is_flag=True, help="print the answer as one JSON object"),
]


def _command(op: Operation) -> click.Command:
    params: list[click.Parameter] = []
    positional = False
    for name, field in op.request.model_fields.items():
        extra: dict[str, Any] = cast("dict[str, Any]", field.json_schema_extra) if isinstance(field.json_schema_extra, dict) else {}
        if extra.get("positional"):
            many = get_origin(field.annotation) is list
            params.append(click.Argument([name], required=False, nargs=-1 if many else 1, metavar="FILE" if extra.get("read") else name.upper()))
            positional = True
        else:
            params.append(_option(name, field.annotation, field.description or "", None if field.is_required() else field.get_default(call_default_factory=True)))
    params.append(click.Option(["--input", "input_file"], help="the whole request as JSON: a file, or - for standard input"))
    command = click.Command(op.verb, params=[*params, *WHERE], callback=_runner(op), help=op.run.__doc__, short_help=op.summary, context_settings=HELP, no_args_is_help=positional)
    return command


def _option(name: str, annotation: Any, help_text: str, default: Any) -> click.Option:
    kind = _plain_type(annotation)
    flag = f"--{name.replace('_', '-')}"
    shown = f"{help_text} [{default}]" if default is not None and default is not False and default != "" and not isinstance(default, list) else help_text
    if kind is bool:
        return click.Option([flag, name], is_flag=True, default=None, help=shown)
    if kind is list:
        return click.Option([flag, name], multiple=True, help=shown)
    return click.Option([flag, name], type={int: int, float: float}.get(kind, str), default=None, help=shown)


def _plain_type(annotation: Any) -> Any:
    """``int`` of ``Annotated[int | None, …]``."""
    origin = get_origin(annotation)
    if origin is list:
        return list
    if origin in {Union, types.UnionType}:
        return _plain_type(next(a for a in get_args(annotation) if a is not type(None)))
    if hasattr(annotation, "__metadata__"):
        return _plain_type(get_args(annotation)[0])
    return annotation


def _runner(op: Operation) -> Callable[..., None]:
    def run(input_file: str | None, home: str | None, server: str | None, api_key: str | None, as_json: bool, **given: Any) -> None:
        fields: dict[str, Any] = {k: list(cast("tuple[Any, ...]", v)) if isinstance(v, tuple) else v for k, v in given.items() if v is not None and v != ()}
        fields |= {name: _read_text(fields[name]) for name in _files(op) if name in fields}
        if input_file:
            fields = {**_read_input(input_file), **fields}
        with open_studio(home, server, api_key) as studio:
            from .terminal import Terminal

            with Terminal(quiet=as_json or not op.long) as progress:
                answer = studio.call(op.name, progress=progress, **fields)
        show(op, answer, as_json=as_json)

    return run


def _files(op: Operation) -> list[str]:
    """Fields whose value is a text that the command line reads from a file."""
    return [name for name, field in op.request.model_fields.items() if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("read")]


def _read_text(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except OSError as e:
        raise Invalid("cli.no-input", file=name, reason=e.strerror or str(e)) from e
    except UnicodeDecodeError as e:
        raise Invalid("cli.no-input", file=name, reason=f"no UTF-8 at byte {e.start}") from e


def _read_input(name: str) -> dict[str, Any]:
    text = _read_text(name)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise Invalid("http.bad-json", reason=str(e)[:200]) from e
    if not isinstance(value, dict):
        raise Invalid("http.not-an-object", got=type(value).__name__)
    return value  # pyright: ignore[reportUnknownVariableType]


def main(arguments: list[str] | None = None) -> None:
    """Entry point of ``wenfang``: 0 done, 1 failed, 2 wrong usage."""
    words = sys.argv[1:] if arguments is None else arguments
    if "--lang" in words[:-1]:  # before the tree is built: its help texts are in that language
        os.environ["WENFANG_LANG"] = words[words.index("--lang") + 1]
    try:
        code = create_cli().main(args=words, standalone_mode=False)
    except click.exceptions.Abort:  # what click makes of Ctrl-C
        click.echo(say("cli.cancelled"), err=True)
        code = 130
    except click.ClickException as e:
        e.show()
        code = 2
    except (Cancelled, KeyboardInterrupt):
        click.echo(say("cli.cancelled"), err=True)
        code = 130
    except Invalid as e:
        _print_error(e, words)
        code = 2 if e.code in USAGE else 1
    except WenfangError as e:
        _print_error(e, words)
        code = 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader has gone: nothing more to say
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _print_error(e: WenfangError, words: list[str]) -> None:
    if "--json" in words:
        click.echo(json.dumps(e.problem(), ensure_ascii=False, default=str), err=True)
    else:
        click.echo(f"{click.style(f'[{e.code}]', fg='red')} {e.detail()}", err=True)
        if tail := e.hint():
            click.echo(f"  → {tail}", err=True)
