"""The crf family: against CRFsuite, on long texts, without numba, on real résumés."""

import os
import random
import resource
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pycrfsuite
import pytest

from wenfang.core.errors import Broken, Invalid
from wenfang.core.examples import Alternative, Examples, Span
from wenfang.models import Curve, contexts, families, lexicon, tagger, topics
from wenfang.models.places import Places
from wenfang.models.spans import span_f1
from wenfang.models.tags import TagSet

Crf = families.get("crf")
DATA = Path(os.environ.get("WENFANG_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "resume_ner"


def letters(n=200, seed=0):
    """Names after 找, places before 市, both of one to three characters, in noise."""
    rng = random.Random(seed)
    texts, spans = [], []
    for _ in range(n):
        text, found = "", []
        for _ in range(rng.randint(0, 3)):
            text += "".join(rng.choice("的了在是我有和") for _ in range(rng.randint(1, 4)))
            name = "".join(rng.choice("天地玄黄宇宙洪荒") for _ in range(rng.randint(1, 3)))
            if rng.random() < 0.5:
                text += "找"
                found.append(Span(len(text), len(text) + len(name), "人"))
                text += name
            else:
                found.append(Span(len(text), len(text) + len(name), "地"))
                text += name + "市"
        texts.append(text)
        spans.append(tuple(found))
    return Examples("tagging", texts, spans=spans)


def f1(model, data):
    return span_f1([o.spans for o in model.predict(data.texts)], data.spans)


@pytest.fixture(scope="module")
def model():
    return Crf(Crf.Hyper(topics=True), task="tagging").fit(letters())


@pytest.mark.parametrize(
    "hyper",
    [
        {},
        {"runs": 2},
        {"algorithm": "lbfgs"},
        {"algorithm": "lbfgs", "passes": 0},
        {"algorithm": "perceptron"},
        {"c1": 0.0},
        {"min_count": 3},
        {"lexicon": False, "clusters": False, "topics": False},
        {"words": {"names": ("天地",)}},
        {"templates": ((("form", -1),), (("form", 0), ("form", 1)))},
        {"algorithm": "lbfgs", "c1": 0.0, "c2": 0.0, "iterations": 3},
    ],
)
def test_every_setting_learns(hyper):
    model = Crf(Crf.Hyper(**hyper), task="tagging").fit(letters(), letters(30, 1))
    assert f1(model, letters(100, 2)) > 0.9


def test_not_worse_than_crfsuite(tmp_path):
    train, test = letters(60, 3), letters(200, 4)
    model = Crf(Crf.Hyper(algorithm="lbfgs", passes=0, iterations=60, c1=0.0, c2=0.01, lexicon=False, clusters=False, topics=False), task="tagging").fit(train)
    tags = TagSet(("人", "地"))
    trainer = pycrfsuite.Trainer(verbose=False)

    def features(text):
        rows = model.tagger_.contexts.windows(Places([text], "character"), {}).rows
        return [[str(r) for r in row if r] for row in rows.tolist()]

    for text, spans in zip(train.texts, train.spans, strict=True):
        trainer.append(features(text), [tags.names[t] for t in tags.encode(spans, len(text))])
    trainer.set_params({"c1": 0.0, "c2": 0.01, "max_iterations": 60, "feature.possible_transitions": True, "feature.possible_states": True})
    trainer.train(str(tmp_path / "m"))
    tagger = pycrfsuite.Tagger()
    tagger.open(str(tmp_path / "m"))
    number = {n: i for i, n in enumerate(tags.names)}
    theirs = [tags.decode([number[t] for t in tagger.tag(features(text))]) for text in test.texts]
    ours = [o.spans for o in model.predict(test.texts)]
    assert span_f1(ours, test.spans) >= span_f1(theirs, test.spans) - 0.005
    assert span_f1(ours, theirs) > 0.9
    ends = trainer.logparser.last_iteration["loss"]
    from wenfang.models.chain_fit import Chain

    t, gold = model.tagger_, np.concatenate([tags.encode(s, len(t)) for t, s in zip(train.texts, train.spans, strict=True)])
    chain = Chain(t.contexts.windows(Places(train.texts, "character"), {}), t.layout.place_of(len(tags))[gold], rows=len(t.contexts), layout=t.layout)
    loss, _ = chain.objective(np.concatenate([t.weights.astype(float).ravel(), t.transitions.astype(float).ravel()]), c2=0.01)
    assert loss <= ends * 1.02 + 0.05  # the same objective but for the paths that BIOES forbids


def test_the_score_is_the_probability_of_the_path(model):
    data = letters(300, 5)
    outputs = model.predict(data.texts)
    right = np.mean([o.spans == s for o, s in zip(outputs, data.spans, strict=True)])
    assert np.mean([o.score for o in outputs]) == pytest.approx(right, abs=0.1)
    assert model.predict([""])[0].score == 1.0


def test_the_score_of_a_span_is_its_probability(model):
    data = letters(300, 8)
    outputs = model.predict(data.texts)
    pairs = [(p, span in gold) for o, gold in zip(outputs, data.spans, strict=True) for span, p in zip(o.spans, o.span_scores, strict=True)]
    assert np.mean([p for p, _ in pairs]) == pytest.approx(np.mean([hit for _, hit in pairs]), abs=0.1)
    assert all(o.score <= min(o.span_scores, default=1.0) + 1e-6 <= 1 + 1e-6 for o in outputs)


def floored(model, floor):
    other = Crf(model.hyper.model_copy(update={"floor": floor}), task="tagging")
    other.labels_, other.tagger_ = model.labels_, model.tagger_
    return other


def test_the_floor_decides_what_is_told():
    texts = letters(300, 9).texts
    model = Crf(Crf.Hyper(passes=2), task="tagging").fit(letters(12))  # seldom sure
    best, likely, sure = (floored(model, f).predict(texts, top_k=3) for f in (0.0, 0.4, 0.8))
    ways = [[w.score for w in o.alternatives] for o in best]
    assert ways == [sorted(w, reverse=True) for w in ways]
    known = [dict(zip(o.spans, o.span_scores, strict=True)) for o in best]
    assert any(p < 0.4 for own in known for p in own.values())
    for own, told, few, heard in zip(known, likely, sure, model.opinion(texts), strict=True):
        assert {s: p for s, p in own.items() if p > 0.5}.items() <= dict(zip(told.spans, told.span_scores, strict=True)).items()
        assert few.spans == tuple(s for s in own if own[s] >= 0.8)
        assert all(p >= 0.4 for p in told.span_scores)
        assert all(a.end <= b.start for a, b in pairwise(told.spans))
        assert {s for s, p in own.items() if p >= 0.05} <= set(heard.spans)
        assert told.score <= min(told.span_scores, default=1.0) + 1e-6
    changed = next(i for i, (a, b) in enumerate(zip(best, likely, strict=True)) if a.spans != b.spans)
    score = {w.spans: w.score for w in floored(model, 0.0).predict([texts[changed]], top_k=10)[0].alternatives}
    assert likely[changed].score == pytest.approx(score.get(likely[changed].spans, likely[changed].score), rel=1e-4)


def test_other_ways_to_read_a_text(model, monkeypatch):
    texts = [*letters(40, 11).texts, ""]
    outputs = model.predict(texts, top_k=4)
    assert [o.spans for o in outputs] == [o.spans for o in model.predict(texts)]
    assert model.predict(texts)[0].alternatives is None
    for output in outputs:
        ways = output.alternatives
        assert (ways[0].spans, ways[0].score) == (output.spans, output.score)
        assert len({w.spans for w in ways}) == len(ways) <= 4
        scores = [w.score for w in ways]
        assert scores[1:] == sorted(scores[1:], reverse=True)
        assert sum(scores) <= 1 + 1e-6
    assert outputs[-1].alternatives == (Alternative((), 1.0),)
    assert len(model.predict(["找天地"], top_k=100)[0].alternatives) == 10
    monkeypatch.setattr(tagger, "available", lambda: False)
    assert model.predict(texts, top_k=4) == outputs


def english(n=150, seed=0):
    """play SONG by ARTIST, words of several syllables."""
    rng = random.Random(seed)
    texts, spans = [], []
    for _ in range(n):
        song, artist = (" ".join("".join(rng.choice(["ka", "lo", "mi", "tu", "re"]) for _ in range(rng.randint(2, 4))) for _ in range(rng.randint(1, 2))) for _ in "ab")
        text = f"please play  {song} by {artist}!"
        at = text.rindex(artist)
        texts.append(text)
        spans.append((Span(13, 13 + len(song), "song"), Span(at, at + len(artist), "artist")))
    return Examples("tagging", texts, spans=spans)


def test_spelled_texts_are_tagged_by_words(tmp_path):
    model = Crf(task="tagging").fit(english())
    assert model.tagger_.unit == "word"
    assert f1(model, english(60, 1)) > 0.9
    model.save(tmp_path)
    again = Crf.load(tmp_path, task="tagging", hyper=model.hyper, labels=model.labels_)
    assert again.predict(english(20, 2).texts) == model.predict(english(20, 2).texts)
    assert model.predict(["", "  ", "please play 天地 by 玄黄"])[0].spans == ()


def test_examples_without_worth_teach_nothing():
    right, wrong = letters(160, 9), letters(160, 9)
    wrong = Examples("tagging", wrong.texts, spans=[() for _ in wrong.texts])
    both = Examples("tagging", right.texts + wrong.texts, spans=right.spans + wrong.spans, weights=[1.0] * 160 + [1e-6] * 160)
    for algorithm in ("sgd", "lbfgs"):
        hyper = Crf.Hyper(algorithm=algorithm, lexicon=False)
        alone, beside = (f1(Crf(hyper, task="tagging").fit(data), letters(60, 10)) for data in (right, both))
        assert beside > alone - 0.02
        assert alone > 0.95


def test_given_words_help():
    train = Examples("tagging", ["去天地看", "去玄黄看", "去宇宙看", "去日月看"] * 6, spans=[(Span(1, 3, "地"),), (), (Span(1, 3, "地"),), ()] * 6)
    model = Crf(Crf.Hyper(words={"places": ("天地", "宇宙", "洪荒")}, lexicon=False), task="tagging").fit(train)
    assert [o.spans for o in model.predict(["去洪荒看", "去盈昃看"])] == [(Span(1, 3, "地"),), ()]


def test_a_hundred_thousand_characters(model):
    text = "".join(letters(4000, 6).texts)
    text = (text * (100_000 // len(text) + 1))[:100_000]
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    (answer,) = model.predict([text])
    assert time.process_time() - started < 5
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 400e6
    assert len(answer.spans) > 10_000
    assert 0.0 <= answer.score <= 1.0


def test_without_numba_the_answers_are_equal(model, monkeypatch):
    texts = [*letters(150, 7).texts, "", "天" * 3000, "\0\ud800😀"]
    with_numba = model.predict(texts)
    for module in (tagger, contexts, lexicon, topics):
        monkeypatch.setattr(module, "available", lambda: False)
    assert model.predict(texts) == with_numba
    assert [model.predict([t])[0] for t in texts] == with_numba


def test_spans_that_do_not_fit_are_refused():
    with pytest.raises(Invalid, match=r"model\.bad-span"):
        Crf(task="tagging").fit(Examples("tagging", ["天地"], spans=[(Span(0, 3, "x"),)]))


def test_runs_are_averaged_and_repeat_to_the_bit():
    def fitted(**more):
        return Crf(Crf.Hyper(passes=2, c1=0.0, clusters=False, lexicon=False, **more), task="tagging", seed=3).fit(letters(40))

    one, three, again = fitted(), fitted(runs=3), fitted(runs=3)
    assert np.array_equal(three.tagger_.weights, again.tagger_.weights)
    assert len(three.tagger_.weights) >= len(one.tagger_.weights)  # what no run heard has no weight
    assert not np.array_equal(three.tagger_.transitions, one.tagger_.transitions)
    curve = Curve()
    Crf(Crf.Hyper(passes=4, runs=2), task="tagging").fit(letters(40), letters(10, 1), curve)
    assert [s.step for s in curve.steps] == list(range(1, 9))
    assert [s.valid_score is None for s in curve.steps] == [False] * 4 + [True, True, False, False]


def test_time_over_stops_early():
    curve = Curve(deadline=0.0)
    model = Crf(Crf.Hyper(passes=100), task="tagging").fit(letters(), None, curve)
    assert curve.steps == []
    assert len(model.predict(["找天地"])) == 1


def test_damaged_weights_are_refused(model, tmp_path):
    model.save(tmp_path)
    path = tmp_path / "crf.safetensors"
    good = path.read_bytes()
    for bad in (b"", good[: len(good) // 2], b"\xff" * 64):
        path.write_bytes(bad)
        with pytest.raises(Broken, match=r"model\.damaged"):
            Crf.load(tmp_path, task="tagging", hyper=model.hyper, labels=model.labels_)
    path.write_bytes(good)
    with pytest.raises(Broken, match=r"model\.damaged"):
        Crf.load(tmp_path, task="tagging", hyper=model.hyper, labels=["人"])


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="no Resume NER: set WENFANG_TEST_DATA")
def test_real_resumes():
    def read(name):
        texts, spans = [], []
        for block in (DATA / name).read_text(encoding="utf-8").strip().split("\n\n"):
            rows = [line.split(" ") for line in block.splitlines()]
            found, start = [], 0
            for i, (_, tag) in enumerate(rows):
                start = i if tag[0] in "BS" else start
                if tag[0] in "ES":
                    found.append(Span(start, i + 1, tag[2:]))
            texts.append("".join(r[0] for r in rows))
            spans.append(tuple(found))
        return Examples("tagging", texts, spans=spans)

    model = Crf(task="tagging").fit(read("train.char.bmes"))
    assert f1(model, read("dev.char.bmes")) > 0.928
