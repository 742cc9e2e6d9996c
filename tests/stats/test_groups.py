"""A part against the rest."""

import numpy as np
import pytest

from wenfang.stats.groups import against_the_rest
from wenfang.stats.scores import Counts, in_millionths


def accuracy(right):
    return Counts("accuracy", np.asarray(right, np.int64)[:, None])


@pytest.mark.parametrize("seed", range(5))
def test_accuracy_agrees_with_the_exact_distribution(seed):
    hypergeom = pytest.importorskip("scipy.stats").hypergeom
    rng = np.random.default_rng(seed)
    inside = rng.random(300) < 0.2
    right = rng.random(300) < np.where(inside, 0.7, 0.85)
    found = against_the_rest(accuracy(right), inside, resamples=20_000, seed=seed)
    part, all_right = int(inside.sum()), int(right.sum())
    hits = np.arange(part + 1)
    differences = hits / part - (all_right - hits) / (300 - part)
    exact = hypergeom(300, all_right, part).pmf(hits)[np.abs(differences) >= abs(found.difference) - 1e-9].sum()
    assert found.p == pytest.approx(exact, abs=0.01)
    assert found.difference == pytest.approx(right[inside].mean() - right[~inside].mean())
    assert found.low < found.difference < found.high


@pytest.mark.parametrize("distinct", [False, True])
def test_no_difference_is_rarely_seen(distinct):
    rng, alarms = np.random.default_rng(1), 0
    for case in range(150 if distinct else 300):
        inside = np.arange(1100 if distinct else 150) < 40
        n = len(inside)
        counts = Counts("rouge_l", in_millionths(rng.random(n))[:, None]) if distinct else accuracy(rng.random(n) < 0.8)
        alarms += against_the_rest(counts, inside, resamples=100, seed=case).p <= 0.05
    assert alarms <= (15 if distinct else 24)


def test_a_bad_part_is_found():
    rng = np.random.default_rng(2)
    inside = np.arange(2000) < 100
    values = np.clip(rng.normal(np.where(inside, 0.4, 0.5), 0.1), 0, 1)
    found = against_the_rest(Counts("rouge_l", in_millionths(values)[:, None]), inside)
    assert found.p < 0.002
    assert found.high < 0
