"""Intervals and paired tests: exact on worlds with known answers, honest under A/A."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wenfang.stats.bootstrap import draw, interval
from wenfang.stats.paired import compare, holm, mcnemar, paired_bootstrap, randomisation
from wenfang.stats.scores import Counts, collapse, score, scores


def span_counts(rng, gold, quality=0.8):
    hit = rng.binomial(gold, quality)
    return Counts("span_f1", np.stack([hit, hit + rng.poisson(0.3, len(gold)), gold], axis=1))


def naive_macro(gold, predicted):
    labels = {*gold} | {p for p in predicted if p >= 0}
    f1 = [2 * sum(g == p == c for g, p in zip(gold, predicted, strict=True)) / (sum(g == c for g in gold) + sum(p == c for p in predicted)) for c in labels]
    return sum(f1) / len(f1)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 4)), min_size=1, max_size=40))
def test_macro_f1_is_the_mean_of_the_f1_of_the_classes_seen(pairs):
    rows = np.array(pairs)
    assert score(Counts("macro_f1", rows)) == pytest.approx(naive_macro(*rows.T.tolist()))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
def test_collapse_keeps_every_row(rows):
    array = np.array(rows)
    distinct, times = collapse(array)
    assert sorted(itertools.chain.from_iterable([tuple(r)] * t for r, t in zip(distinct.tolist(), times.tolist(), strict=True))) == sorted(rows)
    assert (np.diff(times) <= 0).all()


@pytest.mark.parametrize("times", [[900, 80, 12, 5, 2, 1], [1] * 30, [50, 40], [500]])
def test_drawn_weights_have_the_moments_of_a_multinomial(times):
    times = np.array(times)
    n = times.sum()
    weights = np.concatenate(list(draw(times, resamples=20_000, seed=3)))
    share = times / n
    assert (weights.sum(axis=1) == n).all()
    assert weights.mean(axis=0) == pytest.approx(times, rel=0.05)
    assert weights.var(axis=0) == pytest.approx(n * share * (1 - share), rel=0.08)


def test_interval_equals_resampling_the_examples_themselves():
    rng = np.random.default_rng(5)
    counts = span_counts(rng, rng.poisson(2, 400))
    plain = [score(counts.take(rng.integers(0, 400, 400))) for _ in range(2000)]
    found = interval(counts)
    assert (found.low, found.high) == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.004)
    assert found == interval(counts)
    assert found != interval(counts, seed=1)


def test_interval_of_the_resume_anchor():
    """A published figure: accuracy .872 of 10,000 has ± 0.65 points."""
    found = interval(Counts("accuracy", (np.arange(10_000) < 8720).astype(np.int64)[:, None]))
    assert (found.high - found.low) / 2 == pytest.approx(0.0065, abs=0.0003)


def test_all_right_is_not_certain():
    found = interval(Counts("accuracy", np.ones((20, 1), np.int64)))
    assert (found.score, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.8316, abs=1e-3)  # Clopper-Pearson 20 of 20
    assert interval(Counts("accuracy", np.zeros((20, 1), np.int64))).high == pytest.approx(0.1684, abs=1e-3)
    assert interval(Counts("accuracy", np.zeros((0, 1), np.int64))) == interval(Counts("span_f1", np.zeros((0, 3), np.int64)))


def test_no_spans_anywhere_is_perfect():
    assert score(Counts("span_f1", np.zeros((5, 3), np.int64))) == 1.0


def test_the_interval_covers_the_truth():
    rng = np.random.default_rng(11)
    inside = 0
    for seed in range(600):
        found = interval(Counts("accuracy", (rng.random(300) < 0.85).astype(np.int64)[:, None]), resamples=500, seed=seed)
        inside += found.low <= 0.85 <= found.high
    assert 0.925 <= inside / 600 <= 0.975


@pytest.mark.parametrize("test", ["bootstrap", "judged"])
@pytest.mark.parametrize("metric", ["accuracy", *(pytest.param(m, marks=pytest.mark.slow) for m in ("span_f1", "macro_f1"))])
def test_two_equal_models_are_rarely_called_different(metric, test):
    """A/A at 5 %: the two models err at the same rate on different examples; at most 6.3 % of 2,000 cases may be called different."""
    rng = np.random.default_rng(7)
    alarms = 0
    for case in range(2000):
        n = int(rng.integers(200, 600))
        if metric == "span_f1":
            gold = rng.poisson(1.2, n)
            a, b = span_counts(rng, gold), span_counts(rng, gold)
        elif metric == "accuracy":
            hard = rng.random(n) < 0.3
            a, b = (Counts("accuracy", (rng.random(n) > np.where(hard, 0.4, 0.05)).astype(np.int64)[:, None]) for _ in range(2))
        else:
            gold = rng.choice(4, n, p=[0.5, 0.3, 0.15, 0.05])
            a, b = (Counts("macro_f1", np.stack([gold, np.where(rng.random(n) < 0.8, gold, rng.integers(0, 4, n))], axis=1)) for _ in range(2))
        p = paired_bootstrap(a, b, resamples=400, seed=case).p if test == "bootstrap" else mcnemar_or_random(a, b, case)
        alarms += p <= 0.05
    assert alarms / 2000 <= 0.063


def mcnemar_or_random(a, b, seed):
    if a.metric == "accuracy":
        return compare(a, b, resamples=10, seed=seed).p
    return randomisation(a, b, resamples=400, seed=seed)


def test_a_real_difference_is_found():
    rng = np.random.default_rng(2)
    gold = rng.poisson(2, 800)
    better, worse = span_counts(rng, gold, 0.9), span_counts(rng, gold, 0.8)
    found = compare(better, worse)
    assert found.p < 0.001
    assert found.low > 0
    mirrored = compare(worse, better)
    assert (mirrored.difference, mirrored.low, mirrored.high) == pytest.approx((-found.difference, -found.high, -found.low), abs=2e-3)
    assert found == compare(better, worse)


def test_identical_answers_are_not_different():
    rng = np.random.default_rng(2)
    for counts in (span_counts(rng, rng.poisson(2, 50)), Counts("accuracy", np.ones((9, 1), np.int64))):
        found = compare(counts, counts)
        assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)
        assert paired_bootstrap(counts, counts).p == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_agrees_with_scipy(only_a, only_b):
    scipy_stats = pytest.importorskip("scipy.stats")
    expected = scipy_stats.binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    assert mcnemar(only_a, only_b) == pytest.approx(expected, rel=1e-9)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_lowers_p_and_keeps_the_order(p):
    adjusted = holm(p)
    assert all(q >= x and q <= 1 for q, x in zip(adjusted, p, strict=True))
    assert [adjusted[i] for i in sorted(range(len(p)), key=lambda i: p[i])] == sorted(adjusted)


def test_many_classes_stay_cheap_and_exact():
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 10_000, 20_000)
    rows = np.stack([gold, np.where(rng.random(20_000) < 0.7, gold, rng.integers(0, 10_000, 20_000))], axis=1)
    distinct, times = collapse(rows)
    expected = naive_from_counts(rows)
    assert scores("macro_f1", distinct, np.repeat(times[None, :].astype(float), 64, axis=0)) == pytest.approx(np.full(64, expected))


def naive_from_counts(rows):
    gold, predicted = rows.T
    hits, g, p = (np.bincount(x, minlength=10_000) for x in (gold[gold == predicted], gold, predicted))
    seen = g + p > 0
    return float((2 * hits[seen] / (g + p)[seen]).mean())
