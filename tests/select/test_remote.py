"""Selections among whose candidates is somebody else's server: asked once for each question, told beforehand, and never waited for without end."""

import json
import random
import socket
import threading
import time

import pytest
from selection_world import InProcess, InProcessReplica, Watcher

from openai_server import KnownServer
from wenfang.core.errors import Invalid
from wenfang.core.examples import Examples
from wenfang.models import families
from wenfang.select.selection import Plan, Ports, select


class Host(InProcess):
    """Replicas in this process, of bundles without weights too; those of a server may not be asked."""

    def start(self, bundle):
        replica = InProcessReplica.__new__(InProcessReplica)
        replica.memory_bytes = lambda: 1_000_000
        InProcessReplica.__init__(replica, self, bundle)
        if replica.model.remote:
            replica.model._ask = None
        self.running += 1
        return replica


def data(n, seed):
    rng = random.Random(seed)
    texts = [f"{seed}-{i}{rng.choice('天地人和')}{'好' if i % 2 else '坏'}" for i in range(n)]
    return Examples("classification", texts, labels=["good" if "好" in t else "bad" for t in texts], ids=[f"ex_{seed}_{i}" for i in range(n)])


def run(work, url, *names, budget_s=30.0, train=None, valid=None, test=None):
    known = {n: families.get(n) for n in names}
    host, watcher = Host(*known.values()), Watcher()
    ports = Ports(host, host.write, progress=watcher, read_bundle=lambda folder: InProcessReplica(host, folder).model)
    parts = [given or data(60, seed) for seed, given in enumerate((train, valid, test))]
    return select(*parts, families=known, ports=ports, plan=Plan(budget_s), work=work, upstreams=[url]), watcher


def test_a_paid_server_is_asked_each_question_once_and_the_price_is_told_before(tmp_path):
    server = KnownServer()
    try:
        outcome, watcher = run(tmp_path, f"{server.base_url}#m=2/8", "upstream", "majority")
        assert outcome.verdict["family"] == "upstream"
        assert outcome.verdict["test"]["score"] == 1.0
        bodies = [json.dumps(body) for _, _, body in server.asked]
        assert len(bodies) == len(set(bodies))
        (told,) = [fields for key, fields in watcher.notes if key == "select.remote-asks"]
        assert 16 + 60 + 60 < len(bodies) <= told["requests_n"]
        assert float(told["charge"]) > 0
        assert outcome.document["final"]["refit"]["key"] == "verdict.refit-needless"
        assert outcome.document["final"]["latency"]["texts"] >= 60
        assert outcome.document["final"]["latency"]["p99_ms"] > 0
        assert any(t["n"] for t in outcome.document["final"]["robustness"])
    finally:
        server.close()


def test_a_server_that_accepts_and_never_answers_does_not_hold_the_selection(tmp_path):
    held = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept():
            while True:
                try:
                    held.append(listening.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        url, begun = f"http://127.0.0.1:{listening.getsockname()[1]}/v1#m", time.monotonic()
        outcome, _ = run(tmp_path / "both", url, "upstream", "majority", budget_s=6.0)
        assert time.monotonic() - begun < 6.0 * 1.15
        assert outcome.verdict["family"] == "majority"
        states = {r["name"]: (r["state"], r["note"]) for r in outcome.document["runs"]}
        assert states["upstream-1"] == ("failed", "net.no-time")
        begun = time.monotonic()
        with pytest.raises(Invalid, match=r"no-run-succeeded"):
            run(tmp_path / "alone", url, "upstream", budget_s=3.0)
        assert time.monotonic() - begun < 3.0 * 1.15
        listening.shutdown(socket.SHUT_RDWR)
    for sock in held:
        sock.close()
