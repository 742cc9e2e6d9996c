"""How often two identical candidates are called different, at α = 5 %: accuracy, macro-F1, span F1; then the best of six identical ones; all of it
again where what valid leaves undecided is decided by ten times as many answers out of fold.

python -m bench verdict_honesty   (2,000 cases each, on as many processes as there are cores; about twenty CPU-minutes)
"""

import itertools
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from wenfang.select.choose import ALPHA, Candidate, Limits, choose, finalists
from wenfang.stats.scores import Counts, score

CASES = 2000
FOLDED = 10
BOUND = 0.063
"""A test that keeps 5 % exactly exceeds this share of 2,000 cases once in two hundred times."""


def answers(metric, difficulty, gold, rng):
    """Counts of one candidate: each example has its own chance of a right answer, equal for all candidates."""
    n = len(difficulty)
    right = rng.random(n) < difficulty
    if metric == "accuracy":
        return right[:, None].astype(np.int64)
    if metric == "macro_f1":
        return np.stack([gold, np.where(right, gold, rng.integers(0, 5, n))], axis=1)
    hit = rng.binomial(gold, difficulty)
    return np.stack([hit, hit + rng.poisson(0.25, n), gold], axis=1)


def world(metric, rng, candidates=2, times=1):
    n = times * (400 if metric == "span_f1" else 1000)
    difficulty = rng.beta(4, 0.6, n)
    gold = rng.poisson(2.0, n) if metric == "span_f1" else rng.choice(5, n, p=[0.5, 0.25, 0.15, 0.07, 0.03])
    found = []
    for i in range(candidates):
        counts = Counts(metric, answers(metric, difficulty, gold, rng))
        found.append(Candidate(f"twin-{i}", "twin", float(score(counts)), counts, {"p50_ms": 1.0, "p99_ms": 2.0, "memory_bytes": 1}, 1000))
    return found


def called_different(metric, seed, candidates=2, folded=False):
    """Whether the verdict says of any candidate that it is significantly worse than the best."""
    rng = np.random.default_rng([seed, candidates])
    found, folds = world(metric, rng, candidates), None
    if folded:
        names = finalists(found, Limits(), seed=seed)
        extra = {c.name: c.counts.rows for c in world(metric, rng, candidates, FOLDED)}
        if len(names) > 1:
            folds = {c.name: Counts(metric, np.concatenate([extra[c.name], c.counts.rows])) for c in found if c.name in names}
    choice = choose(found, Limits(), folds=folds, seed=seed)
    return any(test.worse(ALPHA) for test in choice.tests)


def _case(arguments):
    return called_different(*arguments)


def main(cases=CASES):
    began = time.monotonic()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for folded, candidates, metric in itertools.product((False, True), (2, 6), ("accuracy", "macro_f1", "span_f1")):
            n = cases if candidates == 2 else cases // 5  # six are dear and beside the point
            wrong = sum(pool.map(_case, [(metric, i, candidates, folded) for i in range(n)], chunksize=25))
            held = "holds" if wrong / n <= BOUND else "EXCEEDS"
            print(
                f"{metric:9} {candidates} identical candidates{', folds' if folded else ''}: called different in {wrong} of {n} cases, {100 * wrong / n:.2f} % ({held} {100 * BOUND} %)",
                flush=True,
            )
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else CASES)
