"""``wenfang demo``: the whole path once, on a corpus of our own making."""

from __future__ import annotations

import json
import os
from typing import Any

import click
import httpx

from wenfang.core.home import Home
from wenfang.core.words import say

from .session import show
from .terminal import Terminal, answer_cells
from .up import address, prepare_tree, say_first_key, start_detached

__all__ = ["run_demo"]

QUESTIONS = ["我的快递三天没动了，到底什么时候能到？", "申请退款，钱什么时候回到卡里", "怎么开电子发票"]


def run_demo(home: Home, *, host: str | None, port: int | None, rows: int, budget_s: float) -> None:
    """Write the corpus, run the selection, serve the winner, ask it over HTTP, and print how to go on."""
    from wenfang.data.corpus import write_corpus
    from wenfang.doors.client import open_home
    from wenfang.studio import operations

    home.prepare()
    files = write_corpus(home.root / "demo", rows=rows)
    click.echo(say("cli.demo-corpus", rows=rows, path=files["tickets"]))
    with open_home(home.root) as studio:
        running = type(studio).__name__ != "InPlace"
        with Terminal() as progress:
            verdict = studio.call("selection.run", progress=progress, train=str(files["tickets"]), name="tickets", budget_s=budget_s, serve=True)
        show(operations()["selection.run"], verdict, as_json=False)
        key = os.environ.get("WENFANG_BOOTSTRAP_KEY") or studio.call("key.create", name="demo", role="caller").key
    if not running:
        plan, first_key = prepare_tree(home, host, port)
        say_first_key(first_key)
        start_detached(home, plan)
    url = address(home) or ""
    click.echo()
    _ask(url, key)
    click.echo(say("cli.call-line"))
    body = json.dumps({"inputs": [QUESTIONS[0]]}, ensure_ascii=False)
    click.echo(f"  curl -s {url}/predict/tickets -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{body}'")
    click.echo(say("cli.demo-stop", home=home.root))


def _ask(url: str, key: str) -> None:
    reply = httpx.post(f"{url}/predict/tickets", json={"inputs": QUESTIONS}, headers={"Authorization": f"Bearer {key}"}, timeout=30.0, trust_env=False)
    reply.raise_for_status()
    outputs: list[dict[str, Any]] = reply.json()["outputs"]
    for text, output in zip(QUESTIONS, outputs, strict=True):
        click.echo(say("cli.demo-ask", text=text))
        click.echo("  " + say("cli.demo-answer", answer="\t".join(answer_cells(output))))
