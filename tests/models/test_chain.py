"""The chain's sums against sums over every path, its gradient against differences, its numpy twin against it."""

import itertools

import numpy as np
import pytest

from wenfang.core.examples import Span
from wenfang.models import chain_paths, chain_plain
from wenfang.models.chain_fit import Chain
from wenfang.models.contexts import Windows
from wenfang.models.quasi_newton import minimise
from wenfang.models.tags import Layout, TagSet

TAGS = TagSet(("x", "y"))
L = len(TAGS)
LAYOUT = Layout.of(TAGS, np.arange(L))


def random_chain(seed=0, lengths=(1, 4, 0, 3), rows=12, K=3, scale=1.0):
    rng = np.random.default_rng(seed)
    N = sum(lengths)
    spans = {1: [], 4: [Span(0, 1, "x"), Span(1, 4, "y")], 0: [], 3: [Span(1, 2, "x")]}
    tags = LAYOUT.place_of(L)[np.concatenate([TAGS.encode(spans.get(n, []), n) for n in lengths])]
    windows = Windows(rng.integers(0, rows, (N, K)).astype(np.int32), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    c = Chain(windows, tags, rows=rows, layout=LAYOUT)
    x = rng.normal(0, scale, rows * L + L * L)
    x[:L] = 0  # row 0 is the row of the unknown
    return c, x


def path_scores(c, x):
    """For each sentence the score of each legal path."""
    weights, transitions = x[: c.weights.size].reshape(-1, L), x[c.weights.size :].reshape(L, L)
    for a, b in itertools.pairwise(c.windows.starts.tolist()):
        if a == b:
            continue
        emissions = np.where((c.windows.rows[a:b] > 0)[:, :, None], weights[c.windows.rows[a:b]], 0).sum(axis=1)
        found = {}
        for path in itertools.product(range(L), repeat=b - a):
            if LAYOUT.first[path[0]] and LAYOUT.last[path[-1]] and all(LAYOUT.legal[i, j] for i, j in itertools.pairwise(path)):
                found[path] = sum(emissions[t, p] for t, p in enumerate(path)) + sum(transitions[i, j] for i, j in itertools.pairwise(path))
        yield a, b, found


@pytest.mark.parametrize("scale", [0.5, 3.0, 20.0])
def test_likelihood_equals_the_sum_over_all_legal_paths(scale):
    c, x = random_chain(scale=scale)
    loss, _ = c.objective(x, c2=0.0)
    expected = 0.0
    for a, b, found in path_scores(c, x):
        scores = np.array(list(found.values()))
        expected += scores.max() + np.log(np.exp(scores - scores.max()).sum()) - found[tuple(c.tags[a:b].tolist())]
    assert loss == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_gradient_equals_differences():
    c, x = random_chain()
    _, gradient = c.objective(x, c2=0.3)
    legal = np.concatenate([np.ones(c.weights.size, bool), LAYOUT.legal.ravel()])
    for i in np.flatnonzero(legal)[L:]:  # row 0 never moves
        step = np.zeros_like(x)
        step[i] = 1e-5
        slope = (c.objective(x + step, c2=0.3)[0] - c.objective(x - step, c2=0.3)[0]) / 2e-5
        assert gradient[i] == pytest.approx(slope, rel=1e-5, abs=1e-6)


def decoded(loops, c, x, n):
    weights, transitions = x[: c.weights.size].reshape(-1, L).astype(np.float32), x[c.weights.size :].reshape(L, L).astype(np.float32)
    N = len(c.windows.rows)
    scores = np.zeros((N, L), np.float32)
    loops.emit(c.windows.rows, weights, scores)
    odds = np.exp(np.maximum(scores, np.float32(-80)))
    moves = np.where(LAYOUT.legal, transitions, np.float32(-np.inf)).astype(np.float32)
    steps = np.where(LAYOUT.legal, np.exp(transitions.astype(float)), 0)
    path, scale, ends, mass = np.zeros(N, np.int32), np.ones(N), np.ones(n), np.zeros(N)
    loops.decode(scores, odds, c.windows.starts, moves, steps, np.ascontiguousarray(steps.T), LAYOUT.edges, LAYOUT.before, path, scale, ends, mass)
    return path, scale, ends, mass


def test_decoding_finds_the_best_path_and_the_probability_of_its_spans():
    spans = 0
    for seed in range(8):
        c, x = random_chain(seed, scale=0.7)
        path, _, _, mass = decoded(chain_paths, c, x, 4)
        for a, b, found in path_scores(c, x):
            best = max(found, key=found.get)
            assert tuple(path[a:b].tolist()) == best
            whole = np.logaddexp.reduce(list(found.values()))
            for span in TAGS.decode(LAYOUT.tags[list(best)]):
                tags = best[span.start : span.end]
                held = [s for p, s in found.items() if p[span.start : span.end] == tags]
                assert mass[a + span.start] == pytest.approx(np.exp(np.logaddexp.reduce(held) - whole), rel=1e-4)
                spans += 1
    assert spans > 8


def test_both_decoders_agree_to_the_bit():
    lengths = (1, 30, 0, 7, 200, 7, 1, *range(100))
    for seed in range(3):
        c, x = random_chain(seed, lengths=(1, 4, 0, 3))
        rng = np.random.default_rng(seed)
        c.windows = Windows(rng.integers(0, 12, (sum(lengths), 3)).astype(np.int32), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
        for one, other in zip(decoded(chain_paths, c, x, len(lengths)), decoded(chain_plain, c, x, len(lengths)), strict=True):
            assert np.array_equal(one, other)


def likely(loops, c, x, floor):
    weights, transitions = x[: c.weights.size].reshape(-1, L).astype(np.float32), x[c.weights.size :].reshape(L, L).astype(np.float32)
    N, n = len(c.windows.rows), len(c.windows.starts) - 1
    scores = np.zeros((N, L), np.float32)
    loops.emit(c.windows.rows, weights, scores)
    odds = np.exp(np.maximum(scores, np.float32(-80)))
    steps = np.where(LAYOUT.legal, np.exp(transitions.astype(float)), 0)
    room = int(N * (1 / floor + 1))
    scale, ends, rows, mass = np.ones(N), np.ones(n), np.zeros((room, 3), np.int64), np.zeros(room)
    found = loops.likely(odds, c.windows.starts, steps, np.ascontiguousarray(steps.T), LAYOUT.edges, LAYOUT.before, LAYOUT.after, floor, scale, ends, rows, mass)
    return rows[:found], mass[:found], scale, ends


def test_likely_spans_are_all_that_are_likely():
    for seed in range(4):
        c, x = random_chain(seed, scale=0.7)
        rows, mass, _, _ = likely(chain_paths, c, x, 0.1)
        told = {(a, b + 1, LAYOUT.tags[tag]): p for (a, b, tag), p in zip(rows.tolist(), mass.tolist(), strict=True)}
        right = {}
        for a, _, found in path_scores(c, x):
            whole = np.logaddexp.reduce(list(found.values()))
            for path, score in found.items():
                for span in TAGS.decode(LAYOUT.tags[list(path)]):
                    key = (a + span.start, a + span.end, LAYOUT.tags[path[span.start]])
                    right[key] = right.get(key, 0.0) + np.exp(score - whole)
        assert told == pytest.approx({key: p for key, p in right.items() if p >= 0.1}, rel=1e-4)
        assert len(told) > 5


def test_both_find_the_same_likely_spans():
    lengths = (1, 30, 0, 7, 200, 7, 1, *range(80))
    for seed in range(3):
        c, x = random_chain(seed, lengths=(1, 4, 0, 3))
        rows = np.random.default_rng(seed).integers(0, 12, (sum(lengths), 3))
        c.windows = Windows(rows.astype(np.int32), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
        for one, other in zip(likely(chain_paths, c, x, 0.05), likely(chain_plain, c, x, 0.05), strict=True):
            assert np.array_equal(one, other)


def several(loops, c, x, k):
    weights, transitions = x[: c.weights.size].reshape(-1, L).astype(np.float32), x[c.weights.size :].reshape(L, L).astype(np.float32)
    scores = np.zeros((len(c.windows.rows), L), np.float32)
    loops.emit(c.windows.rows, weights, scores)
    moves = np.where(LAYOUT.legal, transitions, np.float32(-np.inf)).astype(np.float32)
    paths, totals = np.zeros((k, len(scores)), np.int32), np.zeros((len(c.windows.starts) - 1, k))
    loops.several(scores, c.windows.starts, moves, LAYOUT.edges, paths, totals)
    return paths, totals


def test_several_paths_are_the_best_of_all():
    for seed in range(4):
        c, x = random_chain(seed)
        paths, totals = several(chain_paths, c, x, 6)
        for a, b, found in path_scores(c, x):
            s = int(np.searchsorted(c.windows.starts, a, "right")) - 1
            best = sorted(found, key=found.get, reverse=True)[:6]
            assert [tuple(p) for p in paths[: len(best), a:b].tolist()] == best
            assert (totals[s, len(best) :] == -np.inf).all()
            assert np.diff(totals[s, : len(best)]) == pytest.approx(np.diff([found[p] for p in best]), abs=1e-4)


def test_both_find_the_same_several_paths():
    lengths = (1, 30, 0, 7, 60, 1, *range(12))
    for seed in range(3):
        c, x = random_chain(seed, scale=0.0 if seed == 2 else 1.0)  # all equal: ties fall alike
        rows = np.random.default_rng(seed).integers(0, 12, (sum(lengths), 3))
        c.windows = Windows(rows.astype(np.int32), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
        for one, other in zip(several(chain_paths, c, x, 4), several(chain_plain, c, x, 4), strict=True):
            assert np.array_equal(one, other)


def test_a_layout_without_some_tags_keeps_its_rules():
    used = TAGS.encode([Span(0, 2, "x"), Span(3, 4, "y")], 5)  # neither inside x nor B, I, E of y
    lay = Layout.of(TAGS, used)
    assert [TAGS.names[t] for t in lay.tags] == ["B-x", "O", "S-y", "E-x"]
    assert lay.edges.tolist() == [3, 1, 4]
    assert lay.before[3].tolist() == [0, 3]
    for i, j in itertools.product(range(4), repeat=2):
        assert lay.legal[i, j] == TAGS.legal[lay.tags[i], lay.tags[j]]
    assert Layout.of(TAGS, [1, 2, 3]).place_of(L).tolist() == [1, 0, 3, 2, -1, -1, -1, -1, -1]


def test_worth_counts_like_repetition():
    c, x = random_chain()
    once, gradient = c.objective(x, c2=0.0)
    c.worth = np.array([3.0, 3.0, 3.0, 3.0])
    thrice, more = c.objective(x, c2=0.0)
    assert thrice == pytest.approx(3 * once)
    assert np.allclose(more, 3 * gradient)


def test_extreme_weights_stay_finite():
    c, x = random_chain(lengths=(1, 4, 0, 3), scale=1e4)
    loss, gradient = c.objective(x, c2=0.0)
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()


def test_the_search_finds_known_minima():
    target = np.linspace(-1, 1, 50)

    def bowl(x):
        return float(((x - target) ** 2 * np.arange(1, 51)).sum()), 2 * (x - target) * np.arange(1, 51)

    plain = minimise(bowl, np.zeros(50), iterations=200)
    assert np.allclose(plain.x, target, atol=1e-2)
    sparse = minimise(bowl, np.zeros(50), c1=5.0, iterations=300)
    cut = 2.5 / np.arange(1, 51)
    assert np.allclose(sparse.x, np.sign(target) * np.maximum(np.abs(target) - cut, 0), atol=1e-2)
    assert (sparse.x == 0).sum() == (np.abs(target) <= cut).sum()
    stopped = minimise(bowl, np.zeros(50), watch=lambda i, loss, x: i == 3)
    assert (stopped.iterations, stopped.converged) == (3, False)
