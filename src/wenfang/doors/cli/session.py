"""Which studio a command works with, and how its answer is shown."""

from __future__ import annotations

from typing import Any

import click

from wenfang.core.operation import Operation

__all__ = ["open_studio", "show"]


def open_studio(home: str | None, server: str | None, api_key: str | None) -> Any:
    """The studio the flags name."""
    from wenfang.doors.client import connect, open_home

    return connect(server, api_key=api_key) if server else open_home(home)


def show(op: Operation, answer: Any, *, as_json: bool) -> None:
    """Print an answer: JSON for scripts, a table or the fields for people."""
    if as_json:
        click.echo(answer.model_dump_json())
        return
    from .terminal import print_answer

    print_answer(op, answer)
