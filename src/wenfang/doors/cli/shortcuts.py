"""The short cuts: ``run``, ``up``, ``down``, ``predict``, ``config``, ``doctor``, ``demo``."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any, get_args

import click

from wenfang.core.errors import Conflict, Denied, Invalid
from wenfang.core.home import Home
from wenfang.core.records import Task
from wenfang.core.text import has_surrogate
from wenfang.core.version import __version__
from wenfang.core.words import say

from .up import address, become_tree, home_at, prepare_tree, say_first_key, start_detached, stop_tree, upgrade_tree

__all__ = ["COMMANDS", "seconds"]

HOME = click.Option(["--home"], type=click.Path(), help="home folder; WENFANG_HOME, else ./wenfang-home")
JSON = click.Option(["--json", "as_json"], is_flag=True, help="print one JSON object at the end")
SERVER = click.Option(["--server"], envvar="WENFANG_SERVER", help="URL of a remote studio")
API_KEY = click.Option(["--api-key"], envvar="WENFANG_API_KEY", help="key for --server")
PORT = click.IntRange(0, 65535)
WRITING = ("max_tokens", "temperature", "top_p", "stop", "seed")
SUFFIXES = {".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".pq", ".xlsx", ".xlsm", ".txt", ".conll"}
"""A name that ends so is a file, there or not."""
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}


def seconds(text: str) -> float:
    """``5m`` → 300.0; ``10ms`` → 0.01.

    Raises:
        Invalid: `cli.bad-duration`.

    >>> seconds("5m"), seconds("10ms"), seconds("1.5h")
    (300.0, 0.01, 5400.0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)", text.strip())
    if not found:
        raise Invalid("cli.bad-duration", value=text[:40])
    return float(found[1]) * _UNITS[found[2]]


def _run(file: str, home: str | None, server: str | None, api_key: str | None, as_json: bool, **given: Any) -> None:
    """Import FILE, check it, compare model families inside the limits, register the best one, and (with --serve) serve it.

    FILE is CSV, TSV, JSONL, JSON, Parquet, XLSX, CoNLL or plain lines, in UTF-8, UTF-16 or GB18030.
    """
    from .session import open_studio, show
    from .terminal import Terminal

    detach, host, port = given.pop("detach"), given.pop("host"), given.pop("port")
    fields: dict[str, Any] = {k: v for k, v in given.items() if v is not None and v != ()}
    fields["budget_s"] = seconds(fields.pop("budget"))
    if "max_latency" in fields:
        fields["max_latency_ms"] = seconds(fields.pop("max_latency")) * 1000
    if "objective" in fields:
        fields["objectives"] = fields.pop("objective").split(",")
    for many in ("families", "pretrained", "upstreams"):
        if many in fields:
            fields[many] = list(fields[many])
    with open_studio(home, server, api_key) as studio:
        in_place = type(studio).__name__ == "InPlace"
        with Terminal(quiet=as_json) as progress:
            verdict = studio.call("selection.run", progress=progress, train=file, **fields)
        from wenfang.studio import operations

        show(operations()["selection.run"], verdict, as_json=as_json)
        key = _example_key(studio, verdict.service) if verdict.service and not as_json and not server else None
    here = home_at(home)
    if verdict.service and in_place:
        _serve_now(here, verdict, key, host=host, port=port, detach=detach, quiet=as_json)
    elif not as_json:
        _how_to_call(verdict, server or address(here), key)


def _serve_now(home: Home, verdict: Any, key: str | None, *, host: str | None, port: int | None, detach: bool, quiet: bool) -> None:
    plan, first_key = prepare_tree(home, host, port)
    say_first_key(first_key)
    if detach:
        start_detached(home, plan)
    if not quiet:
        _how_to_call(verdict, plan["url"], key)
    if not detach:
        become_tree(plan)


def _example_key(studio: Any, service: str) -> str | None:
    """A caller key for the printed example, unless the person brought one."""
    if os.environ.get("WENFANG_BOOTSTRAP_KEY"):
        return None
    return studio.call("key.create", name=f"example-{service}"[:64], role="caller").key


def example_body(task: str) -> str:
    """What the printed call sends.

    >>> example_body("matching")
    '{"inputs": [{"text": "…", "text_b": "…"}]}'
    """
    return json.dumps({"inputs": [{"text": "…", "text_b": "…"} if task == "matching" else "…"]}, ensure_ascii=False)


def _how_to_call(verdict: Any, url: str | None, key: str | None) -> None:
    if not verdict.service:
        click.echo(say("cli.not-served", name=verdict.model.partition(":")[0]))
        return
    shown = key or ("$WENFANG_BOOTSTRAP_KEY" if os.environ.get("WENFANG_BOOTSTRAP_KEY") else "$WENFANG_API_KEY")
    click.echo(say("cli.call-line"))
    body = example_body(verdict.task)
    click.echo(f"  curl -s {url or 'http://127.0.0.1:8700'}/predict/{verdict.service} -H \"Authorization: Bearer {shown}\" -H 'Content-Type: application/json' -d '{body}'")


def _up(home: str | None, host: str | None, port: int | None, runtime: str | None) -> None:
    """Start the whole studio in one process tree: API, gateway, jobs, replicas. Ctrl-C drains and stops it.

    With --runtime ray://HOST:PORT the replicas run on the machines of a Ray cluster.
    """
    if runtime is not None:
        os.environ["WENFANG_RUNTIME__ADDRESS"] = runtime  # every process of the tree reads the settings anew
    plan, key = prepare_tree(home_at(home), host, port)
    say_first_key(key)
    become_tree(plan)


def _down(home: str | None) -> None:
    """Stop a studio that runs in the background: requests in flight are answered first."""
    here = home_at(home)
    if not stop_tree(here):
        raise Conflict("cli.not-running", path=str(here.root))
    click.echo(say("cli.down"))


def _upgrade(home: str | None) -> None:
    """Turn a running studio into the program that is installed now: every process is replaced, no request is lost."""
    upgrade_tree(home_at(home))
    click.echo(say("cli.upgraded", version=__version__))


def _predict(service: str, texts: tuple[str, ...], texts_b: tuple[str, ...], home: str | None, server: str | None, api_key: str | None, as_json: bool, **given: Any) -> None:
    """Ask SERVICE about each TEXT; without TEXT, about each line of standard input; with --input and --output, about every row of a file or dataset version.

    A batch that was interrupted continues where it stopped when the same command is given again.
    """
    from .session import open_studio
    from .terminal import answer_cells, printable

    writing: dict[str, Any] = {k: v for k in WRITING if (v := given.pop(k)) not in {None, ()}}
    source, output, top_k = given["input_file"], given["output"], given["top_k"]
    if output is not None or source not in {None, "-"}:
        batch = {k: v for k, v in given.items() if k != "input_file" and v is not None}
        _predict_file(service, texts, texts_b, source, home=home, server=server, api_key=api_key, as_json=as_json, **batch, **writing)
        return
    if wrong := [k for k in ("text", "id", "split", "overwrite") if given[k]]:
        raise click.UsageError(say("cli.batch-only", flag=f"--{wrong[0]}"))
    asked = list(texts) or [line.rstrip("\r\n") for line in sys.stdin]
    for number, text in enumerate([*asked, *texts_b], 1):
        if has_surrogate(text):
            raise Invalid("cli.not-utf8", number=number)
    if not asked:
        raise click.UsageError(say("cli.no-text"))
    with open_studio(home, server, api_key) as studio:
        answer = studio.call("service.predict", service=service, inputs=asked, texts_b=list(texts_b), top_k=top_k, **writing)
    if as_json:
        click.echo(answer.model_dump_json())
        return
    for text, output in zip(asked, answer.outputs, strict=True):
        click.echo("\t".join(map(printable, (text, *answer_cells(output)))))


def _predict_file(
    service: str, texts: tuple[str, ...], columns_b: tuple[str, ...], source: str | None, *, home: str | None, server: str | None, api_key: str | None, as_json: bool, **fields: Any
) -> None:
    """``predict --input --output``: the operation ``service.batch``."""
    from wenfang.studio import operations

    from .session import open_studio, show
    from .terminal import Terminal

    if texts or len(columns_b) > 1:
        raise click.UsageError(say("cli.batch-no-texts"))
    if source is None or source == "-" or "output" not in fields:
        raise click.UsageError(say("cli.batch-both"))
    if server:
        raise Denied("batch.output-is-local")
    is_file = Path(source).exists() or os.sep in source or Path(source).suffix.lower() in SUFFIXES
    fields["file" if is_file else "dataset"] = source
    if columns_b:
        fields["text_b"] = columns_b[0]
    with open_studio(home, server, api_key) as studio, Terminal(quiet=as_json) as progress:
        answer = studio.call("service.batch", progress=progress, service=service, **fields)
    show(operations()["service.batch"], answer, as_json=as_json)


def _config(home: str | None, as_json: bool) -> None:
    """Show every setting, its value, and where the value comes from."""
    from wenfang.core.settings import explain_settings

    lines = explain_settings(home_at(home).root)
    if as_json:
        click.echo(json.dumps(lines, ensure_ascii=False))
        return
    for line in lines:
        click.echo(f"{line['key']:34} {line['value']!s:24} {click.style(line['origin'], dim=True):30} {line['description']}")


def _doctor(home: str | None, as_json: bool) -> None:
    """Check the machine and the home: disk, permissions, database, signatures, libraries."""
    from wenfang.studio.doctor import examine

    findings = examine(home_at(home))
    if as_json:
        click.echo(json.dumps(findings, ensure_ascii=False))
    else:
        for f in findings:
            mark = {"ok": click.style("✓", fg="green"), "warn": click.style("!", fg="yellow"), "bad": click.style("✗", fg="red")}[f["state"]]
            click.echo(f"{mark} {say(f['key'], **f['fields'])}")
    if any(f["state"] == "bad" for f in findings):
        sys.exit(1)


def _demo(home: str | None, host: str | None, port: int | None, rows: int, budget: str) -> None:
    """See the whole path once: write a corpus, choose a model, serve it, ask it. The studio goes on in the background."""
    from .demo import run_demo

    run_demo(home_at(home), host=host, port=port, rows=rows, budget_s=seconds(budget))


RUN_OPTIONS: list[click.Parameter] = [
    click.Argument(["file"]),
    click.Option(["--valid"], help="file of the validation split; a tenth of FILE unless given"),
    click.Option(["--test"], help="file of the test split; a tenth of FILE unless given"),
    click.Option(["--task"], type=click.Choice(get_args(Task)), help="guessed unless given"),
    click.Option(["--text"], help="column of the text; guessed unless given"),
    click.Option(["--label"], help="column of the label; guessed unless given"),
    click.Option(["--id"], help="column of the example's id"),
    click.Option(["--group"], help="column whose equal values stay on one side of a split"),
    click.Option(["--text-b"], help="column of the second text of pairs; guessed unless given"),
    click.Option(["--target"], help="column of the text that should be generated; guessed unless given"),
    click.Option(["--weight"], help="column of how much each example counts in learning"),
    click.Option(["--graded/--classes"], default=None, help="whether the labels of pairs are grades; guessed unless given"),
    click.Option(["--name"], help="of dataset, model and service; the file's name unless given"),
    click.Option(["--budget"], default="5m", show_default=True, help="time for search, refit and measuring"),
    click.Option(["--max-latency"], help="limit of the p99 of a single text, such as 10ms"),
    click.Option(["--max-size-bytes"], type=int, help="limit of the bundle"),
    click.Option(["--max-memory-bytes"], type=int, help="limit of a replica's memory"),
    click.Option(["--max-cost", "max_cost_per_million"], type=float, help="limit of what one million requests cost"),
    click.Option(["--metric"], help="to choose by, such as accuracy or macro_f1"),
    click.Option(["--preset"], help="scenario that fills what is not given: see `wenfang selection presets`"),
    click.Option(["--promote"], type=click.Choice(["auto", "always", "never"]), help="make it the champion of its name; auto: when it is better or shown to be no worse"),
    click.Option(["--margin"], type=click.FloatRange(0, 1), help="with --promote auto: how much of the score it may be worse at most, 0.02 unless given"),
    click.Option(["--family", "families"], multiple=True, help="only this family; may be repeated"),
    click.Option(["--objective"], help="score, or a front such as score,latency"),
    click.Option(["--parallel"], type=click.IntRange(1, 64), help="fits at once"),
    click.Option(["--upstream", "upstreams"], multiple=True, help="server of the OpenAI protocol to try, as URL#model@VARIABLE=PRICE_IN/PRICE_OUT; may be repeated"),
    click.Option(["--pretrained"], multiple=True, help="what model pretrain made, by name, or a local directory of the transformers library; may be repeated"),
    click.Option(["--checks"], help="TOML file of your own slices, robustness tests, a price"),
    click.Option(["--seed"], type=int),
    click.Option(["--project"]),
    click.Option(["--serve"], is_flag=True, help="deploy the winner; starts the studio if none runs"),
    click.Option(["--detach"], is_flag=True, help="with --serve: return once it answers"),
    click.Option(["--host"], help="with --serve, if no studio runs"),
    click.Option(["--port"], type=PORT, help="with --serve, if no studio runs"),
]

COMMANDS: list[click.Command] = [
    click.Command("run", params=[*RUN_OPTIONS, HOME, SERVER, API_KEY, JSON], callback=_run, help=_run.__doc__),
    click.Command(
        "up",
        params=[
            HOME,
            click.Option(["--host"]),
            click.Option(["--port"], type=PORT),
            click.Option(["--runtime"], help="where replicas run: local: or ray://HOST:PORT; else as in wenfang.toml"),
        ],
        callback=_up,
        help=_up.__doc__,
    ),
    click.Command("down", params=[HOME], callback=_down, help=_down.__doc__),
    click.Command("upgrade", params=[HOME], callback=_upgrade, help=_upgrade.__doc__),
    click.Command(
        "predict",
        params=[
            click.Argument(["service"]),
            click.Argument(["texts"], nargs=-1),
            click.Option(["--text-b", "texts_b"], multiple=True, help="second text of a pair, one for each TEXT; with --input, the column of it"),
            click.Option(["--top-k"], type=int, default=1, help="answers with their probabilities"),
            click.Option(["--input", "input_file"], help="file of any format or dataset version, every row of which is answered; -: standard input, a text on each line"),
            click.Option(["--output"], help="with --input: file of the answers, .jsonl or .csv"),
            click.Option(["--overwrite"], is_flag=True, default=None, help="with --input: replace the output if it is there"),
            click.Option(["--text"], help="with --input: column of the text; guessed unless given"),
            click.Option(["--id"], help="with --input: column that is written beside each answer"),
            click.Option(["--split"], help="with a dataset version: only this split"),
            click.Option(["--project"], help="with a dataset version: where it belongs"),
            click.Option(["--max-tokens"], type=int, help="generation: tokens at most"),
            click.Option(["--temperature"], type=float, help="generation: 0 is greedy"),
            click.Option(["--top-p"], type=float, help="generation: share of the probability that is drawn from"),
            click.Option(["--stop"], multiple=True, help="generation: ends before any of these"),
            click.Option(["--seed"], type=int, help="generation: equal seed, equal text"),
            HOME,
            SERVER,
            API_KEY,
            JSON,
        ],
        callback=_predict,
        help=_predict.__doc__,
    ),
    click.Command("config", params=[HOME, JSON], callback=_config, help=_config.__doc__),
    click.Command("doctor", params=[HOME, JSON], callback=_doctor, help=_doctor.__doc__),
    click.Command(
        "demo",
        params=[HOME, click.Option(["--host"]), click.Option(["--port"], type=PORT), click.Option(["--rows"], type=int, default=6000), click.Option(["--budget"], default="60s")],
        callback=_demo,
        help=_demo.__doc__,
    ),
]
