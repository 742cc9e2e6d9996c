"""The service times of a model version on this machine, through real replica processes: batches of all sizes and lengths, alone and all cores at once.

Knows nothing of gateways; what it returns is plain values.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from wenfang.core.ports import MeasuredReplica
from wenfang.serve.batching import Item, Ticket, choose
from wenfang.serve.costs import CostCurve

from .times import ServiceTimes

__all__ = ["Pair", "Timed", "measure_speeds", "measure_times", "said_curve"]

Pair = tuple[str, str]
"""A text and its second text, empty where there is none."""
QUANTILES = (0.02, 0.3, 0.6, 0.9, 1.0)
"""Of the lengths: where the table has its columns."""
ROUNDS_MIN, ROUNDS_MAX = 3, 15
REAL_EACH = 12
"""Batches of real texts in each round, most of them as the pool would put them together."""
CROWDS = (1, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""How many wait when such a batch is put together."""
PADDED = tuple(i / 20 for i in range(21))


@dataclass(frozen=True, slots=True)
class Timed:
    """What was measured of one replica.

    Args:
        times: of a batch.
        rounds: how slow each round was beside the median.
        single_ms: round trips of single texts as they come, sorted.
        error: the median of how far an expected time was from the measured one, as a share.
    """

    times: ServiceTimes
    rounds: tuple[float, ...]
    single_ms: tuple[float, ...]
    error: float


def said_curve(replica: MeasuredReplica, batch_max: int) -> CostCurve:
    """What a replica says of itself, as a pool takes it."""
    hello = replica.hello
    return CostCurve(hello["item_ms"], hello["fixed_ms"], min(hello["batch_max"], batch_max))


def length_of(pair: Pair) -> int:
    """Code points as the gateway counts them."""
    return Item(pair[0], 0, _NOBODY, pair[1]).length


_NOBODY = Ticket(1, 1, 0.0, float("inf"), lambda _: None)


def _ask_ms(replica: MeasuredReplica, batch: Sequence[Pair]) -> float:
    start = time.perf_counter_ns()
    if batch[0][1]:
        replica.match([a for a, _ in batch], [b for _, b in batch])
    else:
        replica.predict([a for a, _ in batch])
    return (time.perf_counter_ns() - start) / 1e6


def _fitted(pair: Pair, length: int) -> Pair:
    """The texts cut or repeated so that they count ``length``."""
    a, b = pair
    n = max(1, length - 2)
    if not b:
        return (a * (n // len(a) + 1))[:n], ""
    of_b = max(1, min(n - 1, round(n * len(b) / (len(a) + len(b)))))
    of_a = max(1, n - of_b)
    return (a * (of_a // len(a) + 1))[:of_a], (b * (of_b // len(b) + 1))[:of_b]


def _real_batch(texts: Sequence[Pair], curve: CostCurve, rng: random.Random) -> list[Pair]:
    """What the pool would send of some that wait."""
    waiting: list[Item] = []
    for a, b in rng.choices(texts, k=rng.choice(CROWDS)):
        waiting.append(Item(a, 0, _NOBODY, b))
    return [(item.text, item.text_b) for item in choose(waiting, curve, curve.batch_max)]


def measure_times(replica: MeasuredReplica, texts: Sequence[Pair], *, curve: CostCurve, budget_s: float = 8.0, seed: int = 0, told: Callable[[], None] = lambda: None) -> Timed:
    """Measure one replica while nothing else asks it.

    Args:
        replica: warm or not.
        texts: real ones, as they come in; at least one.
        curve: what it says of itself: batches up to ``curve.batch_max``.
        budget_s: about how long it may take; a slow model takes at least three rounds all the same.
        seed: of what is drawn.
        told: called after each round.
    """
    rng = random.Random(seed)
    lengths = sorted(length_of(t) for t in texts)
    columns = sorted({max(3, lengths[min(len(lengths) - 1, int(q * len(lengths)))]) for q in QUANTILES})
    sizes = sorted({size for size in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024) if size < curve.batch_max} | {curve.batch_max})
    cells = [(size, length, [_fitted(t, length) for t in rng.choices(texts, k=size)]) for size in sizes for length in columns]
    for _, _, batch in cells:  # the first of each shape may compile or allocate
        _ask_ms(replica, batch)
    found: dict[tuple[int, int], list[float]] = {(size, length): [] for size, length, _ in cells}
    real: list[tuple[list[int], float, int]] = []
    until, cpu_s, rounds = time.perf_counter() + budget_s, replica.cpu_s(), 0
    while rounds < ROUNDS_MIN or (rounds < ROUNDS_MAX and time.perf_counter() < until):
        for size, length, batch in rng.sample(cells, len(cells)):
            found[size, length].append(_ask_ms(replica, batch))
        for turn in range(REAL_EACH):  # between the rounds, so that what else the machine does is in both
            batch = _mixed_batch(texts, curve, rng) if turn % 4 == 3 and curve.batch_max > 1 else _real_batch(texts, curve, rng)
            real.append(([length_of(t) for t in batch], _ask_ms(replica, batch), rounds))
        rounds += 1
        told()
    busy_ms = sum(map(sum, found.values())) + sum(ms for _, ms, _ in real)
    share = min(1.0, max(0.0, (replica.cpu_s() - cpu_s) * 1000 / max(busy_ms, 1e-9)))
    slow = tuple(statistics.median(found[cell][r] / max(statistics.median(found[cell]), 1e-9) for cell in found) for r in range(rounds))
    table = [[statistics.median(found[size, length]) for length in columns] for size in sizes]
    return _fit(ServiceTimes(tuple(sizes), tuple(columns), _rising(table), cpu_share=round(share, 3)), real, slow)


def _mixed_batch(texts: Sequence[Pair], curve: CostCurve, rng: random.Random) -> list[Pair]:
    """Texts of any length together: they show what padding costs."""
    return rng.choices(texts, k=rng.randint(2, curve.batch_max))


def _rising(table: list[list[float]]) -> tuple[tuple[float, ...], ...]:
    """More or longer texts never cost less: what says otherwise is noise."""
    for i, row in enumerate(table):
        for j in range(len(row)):
            row[j] = max(row[j], row[j - 1] if j else 0.0, table[i - 1][j] if i else 0.0)
    return tuple(map(tuple, table))


def _fit(times: ServiceTimes, real: Sequence[tuple[list[int], float, int]], slow: tuple[float, ...]) -> Timed:
    """Find what padding costs, and how far real batches lie from what is expected of them in their round."""

    def off(padded: float) -> float:
        tried = replace(times, padded=padded)
        return statistics.median(abs(ms / tried.batch_ms(lengths) / slow[r] - 1) for lengths, ms, r in real if len(lengths) > 1)

    times = replace(times, padded=min(PADDED[::-1], key=off) if any(len(set(lengths)) > 1 for lengths, _, _ in real) else 1.0)
    ratios = sorted(ms / times.batch_ms(lengths) / slow[r] for lengths, ms, r in real)
    single = tuple(sorted(ms for lengths, ms, _ in real if len(lengths) == 1))
    return Timed(replace(times, spread=tuple(round(r, 4) for r in ratios)), slow, single, statistics.median(abs(r - 1) for r in ratios))


def measure_speeds(replicas: Sequence[MeasuredReplica], texts: Sequence[Pair], *, curve: CostCurve, seconds: float = 0.6, seed: int = 0) -> tuple[float, ...]:
    """How fast each of 1, 2, … replicas is when so many compute at once, beside one alone. The first is 1.

    Two and all of them are measured, what lies between is put on a line.
    """
    rng = random.Random(seed)
    batch = rng.choices(texts, k=max(1, curve.batch_max))

    def rate(replica: MeasuredReplica) -> float:
        until, n, start = time.perf_counter() + seconds, 0, time.perf_counter()
        while not n or time.perf_counter() < until:
            _ask_ms(replica, batch)
            n += 1
        return n / (time.perf_counter() - start)

    counts = sorted({2, len(replicas)} - {1}) if len(replicas) > 1 else []
    known = {1: 1.0}
    with ThreadPoolExecutor(max(1, len(replicas))) as threads:
        for count in counts:
            together: list[float] = []
            for _ in range(3):  # by turns: whatever else the machine does hits both
                alone = statistics.fmean(rate(r) for r in replicas[:2])
                together.append(statistics.fmean(threads.map(rate, replicas[:count])) / alone)
            known[count] = min(1.0, statistics.median(together))
    speeds = [1.0]
    for n in range(2, len(replicas) + 1):
        low, high = max(k for k in known if k <= n), min(k for k in known if k >= n)
        speeds.append(known[low] if low == high else known[low] + (known[high] - known[low]) * (n - low) / (high - low))
    return tuple(round(min(s, 1.0), 4) for s in speeds)
