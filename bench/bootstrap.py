"""10,000 bootstrap resamples of span F1 from counts, against calling seqeval again for each resample (extrapolated from three calls); then of every other metric.

python -m bench.bootstrap
"""

import platform
import time
from functools import partial

import numpy as np

from wenfang.stats.bootstrap import interval
from wenfang.stats.paired import paired_bootstrap, randomisation
from wenfang.stats.scores import COLUMNS, Counts, in_millionths, midranks


def cpu_s(work, times=3):
    took = []
    for _ in range(times):
        start = time.process_time()
        work()
        took.append(time.process_time() - start)
    return min(took)


def seqeval_call_s(gold, hit):
    try:
        from seqeval.metrics import f1_score
        from seqeval.scheme import IOB2
    except ModuleNotFoundError:
        return None
    true = [["B-X", "O"] * g or ["O"] for g in gold]
    found = [(["B-X", "O"] * h + ["O", "O"] * (g - h)) or ["O"] for g, h in zip(gold, hit, strict=True)]
    return cpu_s(lambda: f1_score(true, found, mode="strict", scheme=IOB2), 3)


def main():
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}; CPU seconds of 10,000 resamples of span F1")
    print(f"{'sentences':>9} {'interval':>9} {'paired':>9} {'random.':>9} {'seqeval':>9}  ratio")
    for n in (500, 2000, 10_000):
        rng = np.random.default_rng(1)
        gold = rng.poisson(3.4, n)
        hits = [rng.binomial(gold, 0.93) for _ in range(2)]
        a, b = (Counts("span_f1", np.stack([h, h + rng.poisson(0.25, n), gold], axis=1)) for h in hits)
        own = [cpu_s(partial(f, *args)) for f, args in ((interval, (a,)), (paired_bootstrap, (a, b)), (randomisation, (a, b)))]
        peer = seqeval_call_s(gold, hits[0])
        tail = f"{peer * 10_000:9.0f}  {peer * 10_000 / own[0]:.0f}x" if peer else "  (pip install seqeval)"
        print(f"{n:9d} " + " ".join(f"{s:9.3f}" for s in own) + " " + tail)
    print(f"\n{'metric':>16} {'interval':>9} {'paired':>9} {'random.':>9}   (2,000 examples)")
    for metric in COLUMNS:
        a, b = (Counts(metric, rows_of(metric, np.random.default_rng(seed), 2000)) for seed in (1, 2))
        print(f"{metric:>16} " + " ".join(f"{cpu_s(partial(f, *args), 1):9.3f}" for f, args in ((interval, (a,)), (paired_bootstrap, (a, b)), (randomisation, (a, b)))))


def rows_of(metric, rng, n):
    """Plausible counts; how they collapse decides the cost."""
    if metric in {"spearman", "pearson"}:
        return np.stack([midranks(rng.random(n)), midranks(rng.random(n))], axis=1)
    if metric == "macro_f1":
        return np.stack([rng.integers(0, 20, n), rng.integers(0, 20, n)], axis=1)
    if COLUMNS[metric] == ("correct",):
        return (rng.random(n) < 0.8).astype(np.int64)[:, None]
    if len(COLUMNS[metric]) == 1:
        return in_millionths(rng.random(n))[:, None]
    return rng.integers(0, 4, (n, 3)) if len(COLUMNS[metric]) == 3 else rng.integers(1, 30, (n, len(COLUMNS[metric])))


if __name__ == "__main__":
    main()
