"""Every answer belongs to its own request, and is what the text gets alone: ``python -m bench.answers [LINEAR] [TRANSFORMER]`` (how many requests of each).

64 connections ask in no order that batches could repeat; the answer to each text was computed beforehand, alone. Gate: 0 mismatches
(another label, or a score off by more than 1e-4). The full run is 1000000 and 50000.
"""

import sys

from bench._known import TOLERANCE, KnownWorld


def main(linear=20_000, transformer=2_000):
    wrong = 0
    for kind, n in (("linear", linear), ("transformer", transformer)):
        if not n:
            continue
        with KnownWorld(kind, replicas=2) as world:
            scores = sorted({(label, round(score, 4)) for label, score in world.known})
            found = world.ask(n)
            batch = world.stats()["pools"]["mv_bench"]
        print(f"{kind:12} {found['requests']} requests in {found['seconds']:.0f} s, {found['statuses']}, {len(scores)} different answers to {len(world.texts)} texts")
        print(f"{'':12} {len(found['mismatches'])} mismatches (tolerance {TOLERANCE:g}), largest difference {found['largest']:.1e}; {batch}")
        for text, known, got in found["mismatches"][:10]:
            print(f"{'':12}   {text!r}: {known} was told as {got}")
        wrong += len(found["mismatches"]) + sum(v for k, v in found["statuses"].items() if k != 200)
    if wrong:
        raise SystemExit(f"{wrong} answers were not right")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
