"""The formulas of metrics on resamples: equal to the plain definition on the resampled examples themselves."""

import numpy as np
import pytest

from wenfang.stats.bootstrap import interval
from wenfang.stats.paired import compare, randomisation
from wenfang.stats.scores import COLUMNS, Counts, collapse, in_millionths, midranks, score, scores


def pairs(rng, n, noise=0.5, *, ties=False):
    gold = rng.normal(size=n)
    said = gold + noise * rng.normal(size=n)
    return (np.round(gold), np.round(said, 1)) if ties else (gold, said)


def spearman(gold, said):
    return Counts("spearman", np.stack([midranks(gold), midranks(said)], axis=1))


def rows_of(metric, rng, n=60):
    if metric in {"spearman", "pearson"}:
        gold, said = pairs(rng, n, ties=True)
        return np.stack([midranks(gold), midranks(said)] if metric == "spearman" else [in_millionths(gold), in_millionths(said)], axis=1)
    if metric == "perplexity":
        tokens = rng.integers(1, 20, n)
        return np.stack([in_millionths(tokens * rng.random(n)), tokens], axis=1)
    if metric == "chrf":
        said, wanted = rng.integers(6, 20, (2, n, 6))
        return np.stack([said, wanted, np.minimum(said, wanted) - rng.integers(0, 6, (n, 6))], axis=2).reshape(n, 18)
    if metric == "bleu":
        said = rng.integers(4, 20, n)[:, None] - np.arange(4)
        right = rng.binomial(said, 0.6)
        return np.concatenate([np.stack([right, said], axis=2).reshape(n, 8), said[:, :1], said[:, :1] + rng.integers(-2, 6, (n, 1))], axis=1)
    if COLUMNS[metric] == ("hit", "predicted", "gold"):
        gold = rng.poisson(2, n)
        hit = rng.binomial(gold, 0.7)
        return np.stack([hit, hit + rng.poisson(0.3, n), gold], axis=1)
    if metric == "macro_f1":
        return np.stack([rng.integers(0, 5, n), rng.integers(-1, 5, n)], axis=1)
    return (rng.random(n) < 0.7).astype(np.int64)[:, None] * (1 if COLUMNS[metric] == ("correct",) else 1_000_000)


@pytest.mark.parametrize("metric", list(COLUMNS))
def test_weights_stand_for_repeated_examples(metric):
    """A resample told by weights scores as the examples themselves, drawn and laid out, do."""
    rng = np.random.default_rng(3)
    counts = Counts(metric, rows_of(metric, rng).astype(np.int64))
    rows, times = collapse(counts.rows)
    number = {tuple(r): i for i, r in enumerate(rows.tolist())}
    for _ in range(20):
        drawn = counts.take(rng.integers(0, len(counts), len(counts)))
        weights = np.bincount([number[tuple(r)] for r in drawn.rows.tolist()], minlength=len(rows))[None, :].astype(float)
        assert scores(metric, rows, weights)[0] == pytest.approx(score(drawn), abs=1e-9)
    found = interval(counts, resamples=200)
    assert found.low <= found.score <= found.high
    assert compare(counts, counts, resamples=50).p == 1
    assert times.sum() == len(counts)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_correlations_agree_with_scipy(seed, ties):
    stats = pytest.importorskip("scipy.stats")
    gold, said = pairs(np.random.default_rng(seed), 200, ties=ties)
    assert score(spearman(gold, said)) == pytest.approx(stats.spearmanr(gold, said).statistic, abs=1e-9)
    assert score(Counts("pearson", np.stack([in_millionths(gold), in_millionths(said)], axis=1))) == pytest.approx(stats.pearsonr(gold, said).statistic, abs=1e-5)
    assert midranks(said) / 2 == pytest.approx(stats.rankdata(said))


def test_a_model_that_says_one_thing_correlates_with_nothing():
    assert score(spearman([1, 2, 3], [0.5, 0.5, 0.5])) == 0
    assert score(spearman([1, 2, 3], [3, 2, 1])) == -1


def test_perplexity_of_a_fair_coin_is_two():
    assert score(Counts("perplexity", np.array([[round(1e6 * 10 * np.log(2)), 10], [round(1e6 * 4 * np.log(2)), 4]]))) == pytest.approx(2)


def test_the_interval_of_spearman_covers_the_truth():
    """Two normal variables with correlation 0.8: Spearman's is 6/pi asin(0.4)."""
    rng, truth, inside = np.random.default_rng(1), 6 / np.pi * np.arcsin(0.4), 0
    for seed in range(200):
        gold, said = pairs(rng, 150, noise=0.75)
        found = interval(spearman(gold, said), resamples=300, seed=seed)
        inside += found.low <= truth <= found.high
    assert 0.9 <= inside / 200 <= 0.98


@pytest.mark.parametrize("metric", ["spearman", "rouge_l", pytest.param("chrf", marks=pytest.mark.slow)])
def test_two_equal_models_are_rarely_called_different(metric):
    rng, alarms, cases = np.random.default_rng(5), 0, 400
    for case in range(cases):
        n = int(rng.integers(60, 160))
        if metric == "spearman":
            gold = rng.normal(size=n)
            a, b = (spearman(gold, gold + 0.6 * rng.normal(size=n)) for _ in range(2))
        elif metric == "rouge_l":
            hard = rng.random(n)
            a, b = (Counts("rouge_l", in_millionths(np.clip(hard + 0.2 * rng.normal(size=n), 0, 1))[:, None]) for _ in range(2))
        else:
            wanted = rng.integers(8, 30, n)[:, None] - np.arange(6)
            a, b = (Counts("chrf", np.stack([wanted, wanted, rng.binomial(wanted, 0.5)], axis=2).reshape(n, 18)) for _ in range(2))
        alarms += randomisation(a, b, resamples=200, seed=case) <= 0.05
    assert alarms / cases <= 0.075  # 5 % and two and a half standard errors of 400 cases
