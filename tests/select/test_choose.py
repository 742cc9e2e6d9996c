"""The choice among measured candidates."""

import numpy as np
import pytest

from wenfang.core.errors import Invalid
from wenfang.core.words import say
from wenfang.select.choose import Candidate, Limits, choose, non_dominated
from wenfang.select.verdict import choice_sentences
from wenfang.stats.scores import Counts


def candidate(name, right, *, n=1000, p50=1.0, p99=2.0, size=1_000_000, memory=10_000_000, constant=False, shift=0):
    rows = np.roll((np.arange(n) < right).astype(np.int64), shift)[:, None]
    latency = {"p50_ms": p50, "p99_ms": p99, "memory_bytes": memory}
    return Candidate(name, name.partition("-")[0], right / n, Counts("accuracy", rows), latency, size, constant)


def test_a_clear_winner_wins_whatever_it_costs():
    choice = choose([candidate("dear-1", 950, p50=50, p99=99, size=10**9), candidate("cheap-1", 900)], Limits())
    assert (choice.chosen, choice.best, choice.runner_up) == ("dear-1", "dear-1", "cheap-1")
    assert choice.tests[0].p_holm < 1e-6


def test_equal_scores_go_to_the_faster_then_to_the_smaller():
    slow, fast = candidate("slow-1", 905, p50=9, p99=20), candidate("fast-1", 900, shift=2)
    assert choose([slow, fast], Limits()).chosen == "fast-1"
    big, small = candidate("big-1", 905, size=5_000_000), candidate("small-1", 900, shift=2)
    assert choose([big, small], Limits()).chosen == "small-1"
    assert choose([big, small], Limits()).runner_up == "big-1"


def test_noise_in_p99_alone_or_a_few_bytes_do_not_decide():
    best, other = candidate("best-1", 905, p50=1.0, p99=8.0, size=1_100_000), candidate("other-1", 900, p50=0.99, p99=5.0, size=1_000_000, shift=2)
    assert choose([best, other], Limits()).chosen == "best-1"


def test_a_constant_answer_wins_only_by_score():
    floor = candidate("floor-1", 12, n=20, p50=0.1, p99=0.1, size=1, constant=True, shift=3)
    assert choose([candidate("real-1", 13, n=20), floor], Limits()).chosen == "real-1"
    assert choose([candidate("real-1", 11, n=20), floor], Limits()).chosen == "floor-1"


def test_limits_exclude_and_the_price_is_named():
    dear, cheap = candidate("dear-1", 950, p99=12, size=9_000_000, memory=999), candidate("cheap-1", 900, memory=99)
    choice = choose([dear, cheap], Limits(max_latency_ms=10, max_size_bytes=5_000_000, max_memory_bytes=500))
    assert choice.chosen == "cheap-1"
    assert [b.limit for b in choice.excluded["dear-1"]] == ["max_latency_ms", "max_size_bytes", "max_memory_bytes"]
    assert choice.loosening[0].difference.difference == pytest.approx(0.05)
    told = choice_sentences(choice, [dear, cheap], {c.name: {"score": c.score, "low": 0.0, "high": 1.0} for c in (dear, cheap)})
    keys = [k for k, _ in told]
    assert keys == ["verdict.chosen", "verdict.alone", "verdict.excluded-latency", "verdict.excluded-size", "verdict.excluded-memory", "verdict.loosening-buys"]
    assert "12.00" in say(*told[2][:1], "zh", **told[2][1])


def test_a_limit_met_exactly_is_met():
    assert choose([candidate("a-1", 900, p99=10.0)], Limits(max_latency_ms=10.0)).chosen == "a-1"


def test_nobody_within_the_limits_names_the_nearest():
    with pytest.raises(Invalid) as e:
        choose([candidate("far-1", 990, p99=100), candidate("near-1", 900, p99=11)], Limits(max_latency_ms=10))
    assert e.value.fields["nearest"] == "near-1"
    assert e.value.fields["times"] == 1.1
    assert "near-1" in e.value.detail("zh")


def test_non_dominated():
    good, fast, bad = candidate("good", 950, p99=5), candidate("fast", 900, p99=1), candidate("bad", 890, p99=5, size=2_000_000)
    assert non_dominated([good, fast, bad]) == ["good", "fast"]
    assert non_dominated([good, good]) == ["good", "good"]
