"""What people see in a terminal: progress while long work goes on, tables and verdicts at its end."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self, cast

import click
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from wenfang.core.operation import Operation
from wenfang.core.words import say

__all__ = ["Terminal", "answer_cells", "print_answer", "print_verdict"]


class _Speed(ProgressColumn):
    """Done/total, speed, time left: what a person wants to know while waiting."""

    def render(self, task: Task) -> Text:
        """The column's text."""
        parts: list[str] = []
        if task.completed or task.total:
            parts.append(f"{task.completed:,.0f}" + (f"/{task.total:,.0f}" if task.total else "") + (f" {task.fields['unit']}" if task.fields.get("unit") else ""))
        if task.speed and task.completed > 1:
            parts.append(f"{task.speed:,.0f}/s" if task.speed >= 10 else f"{task.speed:.2f}/s")
        if task.time_remaining and task.total:
            parts.append(say("cli.left", seconds=int(task.time_remaining)))
        return Text("  ".join(parts), style="dim")


class Terminal:
    """A ``Progress`` drawn by rich on standard error; a plain line per stage when that is no terminal; nothing when quiet."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), _Speed(), TimeElapsedColumn(), TextColumn("{task.fields[figures]}", style="cyan"))
        self._bars = Progress(*columns, console=self.console, transient=False, disable=quiet or not self.console.is_terminal)
        self._task: TaskID | None = None
        self._live = self.console.is_terminal and not quiet

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self._finish()
        self._bars.stop()

    def _finish(self) -> None:
        if self._task is not None:
            task = self._bars.tasks[self._bars.task_ids.index(self._task)]
            self._bars.update(self._task, total=task.total or max(task.completed, 1), completed=task.total or max(task.completed, 1))
            self._bars.stop_task(self._task)

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        """A new line with its own bar."""
        self._finish()
        title = say(f"stage.{name}")
        self._task = self._bars.add_task(title, total=total, unit=unit, figures="")
        if not self._live:
            self.console.print(f"· {title}")

    def advance(self, n: int = 1, /, **figures: Any) -> None:
        """Move the bar and show the figures beside it."""
        if self._task is not None:
            shown = "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items() if v is not None)
            self._bars.advance(self._task, n)
            if shown:
                self._bars.update(self._task, figures=shown)

    def note(self, key: str, /, **fields: Any) -> None:
        """A sentence above the bars."""
        self._bars.console.print(f"  [dim]{_escape(say(key, **fields))}[/]")


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


def printable(text: str) -> str:
    r"""``text`` without control characters: data must not steer the terminal.

    >>> printable("a\x1b[2Jb")
    'a�[2Jb'
    """
    return "".join("�" if unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} else c for c in text)


def printable_lines(text: str) -> str:
    """``printable``, line by line."""
    return "\n".join(printable(line) for line in text.split("\n"))


def answer_cells(output: dict[str, Any]) -> list[str]:
    """One output of any task: what was answered, and the score where there is one.

    >>> answer_cells({"label": "a", "score": 0.5}), answer_cells({"labels": [], "score": 0.5}), answer_cells({"vector": [0.25, 0.5]})
    (['a', '0.5000'], ['—', '0.5000'], ['2 [0.2500, 0.5000]'])
    """
    score = [] if output.get("score") is None else [f"{output['score']:.4f}"]
    if output.get("spans") is not None:
        return ["  ".join(f"{s['label']}:{s['text']}[{s['start']},{s['end']})" for s in output["spans"]) or "—"]
    if (vector := output.get("vector")) is not None:
        return [f"{len(vector)} [{', '.join(f'{x:.4f}' for x in vector[:4])}{', …' if len(vector) > 4 else ''}]"]
    if output.get("text") is not None:
        return [output["text"].replace("\n", "⏎") or "—", *score]
    if output.get("labels") is not None:
        return [", ".join(output["labels"]) or "—", *score]
    if ranked := output.get("scores"):
        return ["  ".join(f"{label} {value:.4f}" for label, value in ranked.items())]
    return [*([output["label"]] if output.get("label") is not None else []), *score]


def print_answer(op: Operation, answer: BaseModel) -> None:
    """An answer for people: lists of records as a table, else its fields."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    if op.name == "selection.report":
        click.echo(answer.model_dump()["html"])
        return
    if op.name in {"service.interface", "service.asyncapi"}:
        click.echo(answer.model_dump()["document"], nl=False)
        return
    if op.name == "service.spec":
        click.echo(answer.model_dump()["toml"], nl=False)
        return
    if op.name == "service.decisions":
        for line in answer.model_dump()["decisions"]:
            step = f"{line['present']} → {line['wanted']}" if line["present"] != line["wanted"] else f"{line['present']}"
            console.print(_escape(printable_lines(f"{line['at']:%Y-%m-%d %H:%M:%S}  {step:6}  {line['why']}")), soft_wrap=True)
        return
    if op.name == "selection.run":
        print_verdict(answer, console)
        return
    if op.name == "service.plan":
        print_plan(answer, console)
        return
    if op.name == "selection.explain":
        console.print(_escape(printable_lines(answer.model_dump()["text"])), soft_wrap=True)
        return
    fields: dict[str, Any] = answer.model_dump(mode="json")
    only = next(iter(fields.values())) if len(fields) == 1 else None
    if only == [] or (isinstance(only, list) and isinstance(only[0], dict)):
        rows = cast("list[dict[str, Any]]", only)
        if not rows:
            console.print(say("cli.nothing"), style="dim")
            return
        _print_table(console, rows)
        return
    for key, value in fields.items():
        text = _shown(value)
        console.print(f"[bold]{key}[/]  {_escape(printable_lines(text))}", soft_wrap=True)


def _shown(value: Any) -> str:
    """A field for people: sentences said, nested values on lines of their own, the very long left to ``--json``."""
    if isinstance(value, str):
        return value
    pairs = cast("list[Any]", value) if isinstance(value, list) else []
    if pairs and all(isinstance(p, list) and len(cast("list[Any]", p)) == 2 and isinstance(p[0], str) and isinstance(p[1], dict) for p in pairs):
        return "".join(f"\n  {line}" for line in _sentences(pairs))
    text = json.dumps(value, ensure_ascii=False, indent=1 if isinstance(value, (dict, list)) else None)
    return text if len(text) <= _SHOWN_MAX else say("cli.long-field", characters=f"{len(text):,}")


def _print_table(console: Console, rows: list[dict[str, Any]]) -> None:
    """What fits a terminal and a person's eye: no digests, no nested values; ``--json`` has everything."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    columns = [c for c in rows[0] if all(_is_short(r.get(c)) for r in rows)]
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == "id")
    for row in rows:
        table.add_row(*(_escape(printable(_cell(row.get(c)))) for c in columns))
    console.print(table)


def _is_short(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) < 64
    return len(json.dumps(value, ensure_ascii=False)) <= 48


def _cell(value: Any) -> str:
    if value is None:
        return "—"
    if isinstance(value, str):
        return f"{value[:10]} {value[11:16]}" if _MOMENT.match(value) else value
    if isinstance(value, dict):
        return " ".join(f"{k}={v}" for k, v in cast("dict[str, Any]", value).items())
    return json.dumps(value, ensure_ascii=False)


PIPED_WIDTH = 160
"""Columns where no terminal says how many it has."""
_SHOWN_MAX = 3000
"""Characters of a nested field that are shown; more is no reading for a terminal."""
_MOMENT = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")


def print_verdict(answer: Any, console: Console) -> None:
    """The end of ``wenfang run``: the verdict in words, the candidates in a table, how to call the winner."""
    console.print()
    for line in _sentences(answer.data_notes):
        console.print(f"[yellow]![/] {_escape(line)}")
    console.print(f"[bold]{_escape(say('cli.chosen', family=answer.family, model=answer.model))}[/]")
    for line in _sentences(answer.verdict):
        console.print(f"  {_escape(printable(line))}")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("family", "score", "interval", "p50", "p99", "size", "train"):
        table.add_column(say(f"cli.column-{column}"), justify="left" if column == "family" else "right")
    for c in answer.candidates:
        latency, valid = c["latency_ms"], c["valid"]
        table.add_row(
            ("▸ " if c["role"] == "chosen" else "  ") + str(c["name"]), _number(valid["score"], 4), f"{_number(valid['low'], 4)}–{_number(valid['high'], 4)}",
            _number(latency["p50"], 2), _number(latency["p99"], 2), _size(c["size_bytes"]), _number(c["fit_s"], 1),
        )  # fmt: skip
    console.print(table)
    test = answer.test
    console.print(say("cli.test-line", metric=answer.metric, score=f"{test['score']:.4f}", low=f"{test['low']:.4f}", high=f"{test['high']:.4f}", n=f"{test['n']:.0f}"))
    console.print(say("cli.report-line", path=answer.report), soft_wrap=True)


def print_plan(answer: Any, console: Console) -> None:
    """A capacity plan: the verdict first, what else to know, then other rates."""
    first, *others = _sentences(answer.says)
    console.print(f"[bold {'green' if answer.met else 'red'}]{_escape(first)}[/]", soft_wrap=True)
    for line in others:
        console.print(f"  {_escape(printable(line))}", soft_wrap=True)
    if answer.table:
        _print_table(console, answer.table)


def _sentences(pairs: Iterable[tuple[str, dict[str, Any]]]) -> list[str]:
    return [say(key, **fields) for key, fields in pairs]


def _number(value: float | None, digits: int) -> str:
    return "—" if value is None else f"{value:.{digits}f}"


def _size(value: float | None) -> str:
    if value is None:
        return "—"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return ""
