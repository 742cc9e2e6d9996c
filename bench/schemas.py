"""Requests that schemathesis makes from a service's own OpenAPI document: ``python -m bench.schemas [REQUESTS]``. Gate: no 5xx but the designed ones, nothing that the document does not tell.

Services of five tasks are asked in turn, REQUESTS in all as near as schemathesis' examples for each path allow. It is not among our
dependencies: ``python -m venv ENV; ENV/bin/pip install -r bench/peers/requirements-schemathesis.txt``, and SCHEMATHESIS names its ``st``.
The full run is 50000.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench._gateway import KEY, World, Writer
from wenfang.core.examples import Output, Span
from wenfang.serve.replica import serve

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,negative_data_rejection"
ST = os.environ.get("SCHEMATHESIS", "st")


class Answers:
    """A right answer of each task, at once."""

    labels_ = ("A", "B")

    def __init__(self, task):
        self.task = task

    def predict(self, texts, *, top_k=1):
        if self.task == "embedding":
            return [Output(vector=np.ones(4, "<f4").tobytes(), tokens_in=len(t)) for t in texts]
        if self.task == "tagging":
            return [Output(spans=(Span(0, 1, "A"),) if t else (), score=0.5) for t in texts]
        return [Output(label="A", score=0.75, scores={"A": 0.75, "B": 0.25} if top_k > 1 else None) for _ in texts]

    def match(self, texts, texts_b, *, top_k=1):
        return [Output(score=0.5) if self.task == "embedding" else Output(label="A", score=0.75) for _ in texts]


class Chat(Writer):
    """As ``Writer``, a token each."""

    def generate(self, texts, options, *, emit=None):
        return super().generate(texts, [type(o)(max_tokens=min(o.max_tokens or 4, 8)) for o in options], emit=emit)


def replica(arguments):
    """Entry of a replica process."""
    task = arguments["kind"]
    serve(Chat() if task == "chat" else Answers(task), arguments)


def main(requests=2000):
    totals = {"cases": 0, "seconds": 0.0}
    failed = []
    for task in ("classification", "tagging", "matching", "embedding", "chat"):
        with World(task, 1, {"cache_bytes": 1 << 20}, task=task, entry="bench.schemas:replica") as world, tempfile.TemporaryDirectory() as name:
            pid = world.gateway.pid
            command = [
                ST, "run", f"http://127.0.0.1:{world.port}/predict/bench/openapi.json", "-H", f"X-API-Key: {KEY}", "--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--seed", "1", "--generation-with-security-parameters", "false",
                "-n", str(max(10, requests // 25)), "--continue-on-failure", "--no-color", "--request-timeout", "20", "--suppress-health-check", "all", "--no-shrink",
            ]  # fmt: skip
            start = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, cwd=name, check=False)
            seconds = time.perf_counter() - start
            statuses = _statuses(world)
            log = (world.root / "gateway.log").read_text(encoding="utf-8", errors="replace")
            alive = Path(f"/proc/{pid}").exists() and world.gateway.popen.poll() is None
        cases = sum(statuses.values())
        totals["cases"] += cases
        totals["seconds"] += seconds
        undesigned = {s: n for s, n in statuses.items() if s >= 500 and s not in {501, 503, 504}}
        print(f"{task:15} {cases:7} requests in {seconds:5.0f} s, {dict(sorted(statuses.items()))}, st ended with {done.returncode}", flush=True)
        if done.returncode or undesigned or not alive or "Traceback" in log or "ERROR" in log:
            failed.append(task)
            print((done.stdout + done.stderr)[-6000:])
            print(log[-2000:])
    print(f"{totals['cases']} requests in {totals['seconds']:.0f} s")
    if failed:
        raise SystemExit(f"not as it should be: {', '.join(failed)}")


def _statuses(world):
    """Answers by status, as the gateway counted them."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", world.port)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    found = {}
    for status, n in re.findall(r'^wenfang_requests_total\{[^}]*status="(\d+)"[^}]*\} (\d+)', text, re.MULTILINE):
        found[int(status)] = found.get(int(status), 0) + int(n)
    return found


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
