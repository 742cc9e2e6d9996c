"""Memory over many requests: ``python -m bench.soak [REQUESTS]``. Gate: flat, that is the second half of the run adds less than 4 MB to gateway and replica.

``linear``, keys, metrics, batching and a small cache of answers on, so that most texts push another out; every answer is compared with the known one on the way. The full run is 1000000.
"""

import sys
from pathlib import Path

from bench._known import KnownWorld

FLAT_BYTES = 4 << 20


def pss_bytes(pid):
    """Memory of one process, shared pages by share."""
    return int(Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").partition("\nPss:")[2].split()[0]) * 1024


def main(requests=50_000):
    rows = []
    with KnownWorld("linear", replicas=1, n=5000, settings={"cache_bytes": 200_000}) as world:
        world.ask(min(20_000, requests // 5))  # caches are full, allocators have what they need

        def look(done):
            rows.append((done, pss_bytes(world.gateway.pid), pss_bytes(world.replicas[0].pid)))
            print(f"{done:9} requests   gateway {rows[-1][1] / 1e6:7.2f} MB   replica {rows[-1][2] / 1e6:7.2f} MB", flush=True)

        look(0)
        found = world.ask(requests, every=max(1, requests // 10), look=look)
    print(f"{found['requests']} requests in {found['seconds']:.0f} s = {found['requests'] / found['seconds']:.0f}/s, {found['statuses']}, {len(found['mismatches'])} mismatches")
    half = rows[len(rows) // 2 :]
    grown = max(half[-1][1] - half[0][1], half[-1][2] - half[0][2])
    print(f"the second half adds {grown / 1e6:+.2f} MB")
    if grown > FLAT_BYTES or found["mismatches"] or set(found["statuses"]) != {200}:
        raise SystemExit("not flat, or not right")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
