"""Does ``--max-latency`` hold? Twenty selections with limits near to what candidates need; each final model is measured again through a fresh replica.

python -m bench latency_limit   (about ten minutes on two idle cores; the figures of a busy machine are those of its load)
"""

import sys
import tempfile
import time
from pathlib import Path

from wenfang.core.errors import Invalid
from wenfang.core.home import Home
from wenfang.core.settings import Settings
from wenfang.data.corpus import write_corpus
from wenfang.data.split import split_rows
from wenfang.data.version import load_examples
from wenfang.guard.roles import LOCAL
from wenfang.models import families
from wenfang.select.latency import measure
from wenfang.select.selection import Limits, Plan, Ports, select
from wenfang.studio import operations
from wenfang.studio.selection_parts import bundle_writer
from wenfang.studio.wiring import open_in_place

RUNS = 20
ROWS = 1500
BUDGET_S = 25.0
FAMILIES = ("majority", "linear", "transformer")
SLACK = (1.02, 1.1, 1.3, 2.0)
"""Limits as multiples of the p99 of the best model of a selection without limits: the first ones are as near as can be."""


def main(runs=RUNS):
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        studio, lock = open_in_place(Home(home / "home"), Settings())
        try:
            _all(studio, home, runs)
        finally:
            studio.tables.close()
            lock.release()


def _all(studio, home, runs):
    op = operations()["dataset.import"]
    answer = studio.run(op, LOCAL, op.request.model_validate({"train": str(write_corpus(home, rows=ROWS)["tickets"]), "name": "tickets"}))
    from wenfang.core.records import DatasetVersion

    version = studio.get(DatasetVersion, answer.id)
    pool = load_examples(version.manifest, studio.blobs, "all")
    rows = split_rows(pool, shares={"train": 0.7, "valid": 0.15, "test": 0.15}, seed=0)
    parts = [pool.take(rows[split]) for split in ("train", "valid", "test")]
    known = {name: families.get(name) for name in FAMILIES}
    ports = Ports(studio.host, bundle_writer(studio, version))

    def choose(work, limit, seed):
        return select(*parts, families=known, ports=ports, plan=Plan(BUDGET_S, Limits(max_latency_ms=limit), seed=seed), work=work)

    free = choose(home / "free", None, 0)
    need = max(c["latency_ms"]["p99"] for c in free.verdict["candidates"] if c["family"] != "majority")
    least = min(c["latency_ms"]["p99"] for c in free.verdict["candidates"] if c["family"] != "majority")
    print(f"without a limit: candidates need p99 {least:.2f} to {need:.2f} ms", flush=True)
    held = refused = 0
    for i in range(runs):
        limit = SLACK[i % len(SLACK)] * (need if i % 2 else least)
        began = time.monotonic()
        try:
            outcome = choose(home / f"run-{i}", limit, i + 1)
        except Invalid as e:
            refused += 1
            print(f"{i + 1:2}  limit {limit:6.2f} ms  refused: {e.fields.get('nearest')} needs {e.fields.get('value')} ms  {time.monotonic() - began:.0f} s", flush=True)
            continue
        now = measure(studio.host, outcome.bundle, parts[2], seed=100 + i)
        held += now.p99_ms <= limit
        print(
            f"{i + 1:2}  limit {limit:6.2f} ms  {outcome.verdict['family']:12} said {outcome.verdict['latency_ms']['p99']:6.2f}  now {now.p99_ms:6.2f} ms  "
            f"{'holds' if now.p99_ms <= limit else 'BROKEN'}  load {now.load:.1f}  {time.monotonic() - began:.0f} s",
            flush=True,
        )
    print(f"held in {held} of {runs - refused} runs that chose a model; {refused} said that no candidate meets the limit")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS)
