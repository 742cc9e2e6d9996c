"""Metrics and evaluations against definitions written out the long way."""

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wenfang.core.errors import Broken
from wenfang.core.examples import Examples, Output, Span
from wenfang.select.calibration import calibration
from wenfang.select.evaluate import evaluate, predict_all
from wenfang.select.metrics import OTHER, class_numbers, class_rows, confusion

labels = st.lists(st.tuples(st.sampled_from("甲乙丙丁"), st.sampled_from("甲乙丙戊")), min_size=1, max_size=50)


@settings(deadline=None)
@given(labels)
def test_per_class_figures_by_definition(pairs):
    gold, predicted = map(list, zip(*pairs, strict=True))
    rows = {r.label: r for r in class_rows(*class_numbers(gold, predicted))}
    assert set(rows) == {*gold, *predicted}
    for label, row in rows.items():
        hit = sum(g == p == label for g, p in pairs)
        assert row.support == gold.count(label)
        assert row.predicted == predicted.count(label)
        assert row.precision == pytest.approx(hit / row.predicted if row.predicted else 0)
        assert row.recall == pytest.approx(hit / row.support if row.support else 0)
        assert row.f1 == pytest.approx(2 * hit / (row.predicted + row.support))
    told = evaluate([Output(label=p, score=0.5) for p in predicted], Examples("classification", ["x"] * len(gold), gold), resamples=20)
    assert told.score == pytest.approx(sum(g == p for g, p in pairs) / len(pairs))
    assert told.figures["micro_f1"] == pytest.approx(told.score)
    assert told.figures["macro_f1"] == pytest.approx(np.mean([r.f1 for r in rows.values()]))
    assert told.low <= told.score <= told.high
    assert told.errors_n == sum(g != p for g, p in pairs)
    assert sum(map(sum, told.confusion.cells)) == len(pairs)


def random_spans(rng, length):
    spans, i = [], 0
    while i < length:
        if rng.random() < 0.35:
            end = min(length, i + rng.randint(1, 3))
            spans.append(Span(i, end, rng.choice("XYZ")))
            i = end
        else:
            i += 1
    return tuple(spans)


def shaken(rng, spans):
    return tuple(s if rng.random() < 0.7 else Span(s.start, s.end, rng.choice("XYZ")) for s in spans if rng.random() < 0.8)


def bioes(spans, length):
    tags = ["O"] * length
    for s in spans:
        inner = ["S"] if s.end - s.start == 1 else ["B", *["I"] * (s.end - s.start - 2), "E"]
        tags[s.start : s.end] = [f"{t}-{s.label}" for t in inner]
    return tags


def tagged_world(seed, n=12):
    rng = random.Random(seed)
    lengths = [rng.randint(1, 14) for _ in range(n)]
    gold = [random_spans(rng, k) for k in lengths]
    found = [shaken(rng, g) if rng.random() < 0.7 else random_spans(rng, k) for g, k in zip(gold, lengths, strict=True)]
    return lengths, gold, found


def judged(lengths, gold, found):
    return evaluate([Output(spans=f, score=0.9) for f in found], Examples("tagging", ["字" * k for k in lengths], spans=gold), resamples=20)


@pytest.mark.parametrize("seed", range(30))
def test_span_f1_is_the_strict_one_of_the_tags(seed):
    """Entities read back from BIOES tags and compared as a multiset give the same figures."""

    def entities(columns):
        return Counter((i, start, end, tag) for i, tags in enumerate(columns) for start, end, tag in read_bioes(tags))

    lengths, gold, found = tagged_world(seed)
    g, p = (entities([bioes(s, k) for s, k in zip(side, lengths, strict=True)]) for side in (gold, found))
    told = judged(lengths, gold, found)
    assert told.score == pytest.approx(2 * (g & p).total() / (g.total() + p.total()) if g or p else 1.0)


def read_bioes(tags):
    start = None
    for i, tag in enumerate(tags):
        if tag[0] in "BS":
            start = i
        if tag[0] in "ES":
            yield start, i + 1, tag[2:]


def test_span_f1_agrees_with_seqeval():
    metrics, scheme = pytest.importorskip("seqeval.metrics", reason="seqeval is not installed"), pytest.importorskip("seqeval.scheme")
    for seed in range(100):
        lengths, gold, found = tagged_world(seed)
        if any(gold) and any(found):
            g, p = ([bioes(s, k) for s, k in zip(side, lengths, strict=True)] for side in (gold, found))
            assert judged(lengths, gold, found).score == pytest.approx(metrics.f1_score(g, p, mode="strict", scheme=scheme.IOBES, zero_division=0))


def test_a_shifted_boundary_or_another_type_is_wrong():
    gold = [(Span(0, 2, "X"),)] * 3
    told = judged([4] * 3, gold, [(Span(0, 2, "X"),), (Span(0, 3, "X"),), (Span(0, 2, "Y"),)])
    assert told.score == pytest.approx(1 / 3)
    assert told.figures["exact_texts"] == pytest.approx(1 / 3)
    assert [e.row for e in told.errors] == [1, 2]
    assert told.errors[0].predicted == "0-3:X"


def test_no_spans_and_no_answers():
    assert judged([3, 3], [(), ()], [(), ()]).score == 1.0
    assert judged([3], [(Span(0, 1, "X"),)], [()]).score == 0.0
    none = evaluate([Output(spans=None)], Examples("tagging", ["字"], spans=[()]))
    assert (none.score, none.ece, none.constant) == (1.0, None, True)


def test_ten_thousand_classes_stay_bounded():
    rng = np.random.default_rng(0)
    gold = [f"c{i}" for i in rng.integers(0, 10_000, 20_000)]
    predicted = [g if rng.random() < 0.6 else "c1" for g in gold]
    told = evaluate([Output(label=p, score=0.5) for p in predicted], Examples("classification", [""] * len(gold), gold), resamples=50)
    assert len(told.confusion.labels) == 21
    assert told.confusion.labels[-1] == OTHER
    assert sum(map(sum, told.confusion.cells)) == 20_000
    assert len(told.errors) == 1000
    assert len(told.document(classes_max=100)["per_class"]) == 100


def test_an_answer_that_is_missing_is_wrong():
    told = evaluate([Output(), Output(label="a", score=0.9)], Examples("classification", ["x", "y"], ["a", "a"]), resamples=20)
    assert told.score == 0.5
    assert told.ece is None
    assert confusion(*class_numbers(["a", "a"], [None, "a"])).labels == ["a", OTHER]


def test_calibration_of_a_calibrated_and_an_overconfident_model():
    rng = np.random.default_rng(1)
    sure = rng.random(50_000)
    assert calibration(sure, rng.random(50_000) < sure)[0] < 0.01
    ece, bins = calibration(np.full(1000, 0.95), np.arange(1000) < 600)
    assert ece == pytest.approx(0.35)
    assert [(b.low, b.high, b.n) for b in bins] == [(0.9, 1.0, 1000)]
    assert calibration(np.array([1.0]), np.array([True]))[0] == 0


def test_most_confident_errors_come_first_and_hold_no_text():
    data = Examples("classification", ["秘密一", "秘密二", "秘密三"], ["a", "a", "b"], ids=["e1", "e2", "e3"])
    told = evaluate([Output(label="b", score=0.6), Output(label="b", score=0.9), Output(label="b", score=0.8)], data, resamples=20)
    assert [(e.id, e.gold, e.predicted) for e in told.errors] == [("e2", "a", "b"), ("e1", "a", "b")]
    assert told.constant
    assert "秘密" not in str(told.document())


class Short:
    def predict(self, texts):
        return [Output(label="a")] * (len(texts) - 1)


def test_wrong_numbers_of_answers_and_nan_are_refused():
    data = Examples("classification", ["x", "y"], ["a", "b"])
    with pytest.raises(Broken, match="answers-missing"):
        predict_all(Short(), data)
    with pytest.raises(Broken, match="answers-missing"):
        evaluate([Output(label="a")], data)
    with pytest.raises(Broken, match="not-a-number"):
        evaluate([Output(label="a", score=float("nan"))] * 2, data)
