"""Members that answer together: how they are weighed, and that it helps."""

import numpy as np
import pytest

from wenfang.core.errors import Broken, Invalid, Unsupported
from wenfang.core.examples import Examples, Output, Span
from wenfang.models import families
from wenfang.models.families.ensemble import Ensemble, EnsembleHyper, Member
from wenfang.models.pooling import Pool, choose_pool, choose_shares, choose_votes, pooled, voted


def opinions(truth, sure, seed):
    """Probabilities of a member that is right with the odds of ``sure``."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(truth), 3)) + sure * np.eye(3)[truth]
    exp = np.exp(logits)
    return exp / exp.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("stacking", [True, False])
def test_a_better_member_is_heard_more_and_a_useless_one_hardly(stacking):
    truth = np.random.default_rng(0).integers(0, 3, 600)
    members = np.stack([opinions(truth, 2.5, 1), opinions(truth, 2.0, 2), opinions(truth, 0.0, 3)])
    pool = choose_pool(members, truth, stacking=stacking)
    assert pool.weights[0] > pool.weights[1] > pool.weights[2]
    fresh = np.random.default_rng(9).integers(0, 3, 600)
    new = np.stack([opinions(fresh, 2.5, 4), opinions(fresh, 2.0, 5), opinions(fresh, 0.0, 6)])
    together = pooled(new, pool)
    assert together.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    assert (together.argmax(1) == fresh).mean() > (new[0].argmax(1) == fresh).mean() + 0.01


def test_few_examples_give_equal_shares():
    truth = np.array([0, 1, 2])
    assert choose_pool(np.stack([opinions(truth, 5, 1), opinions(truth, 0, 2)]), truth, stacking=True) == Pool((0.5, 0.5))


@pytest.mark.parametrize(("stacking", "sharp"), [(True, (1.0, 1.0)), (False, (2.5, 5.0))])
def test_many_examples_outweigh_equal_shares(stacking, sharp):
    """A member that knows nothing the other does not know must not pull the pool down, whether both are timid or it is too sure of itself."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 8000)
    score = rng.normal(size=(8000, 3)) + 2.5 * np.eye(3)[truth]
    strong, weak = (np.exp(s) / np.exp(s).sum(axis=1, keepdims=True) for s in (sharp[0] * score, sharp[1] * (score + rng.normal(size=score.shape))))
    members = np.stack([strong, weak])
    pool = choose_pool(members[:, :4000], truth[:4000], stacking=stacking)
    assert pool.weights[1] < 0.02 * pool.weights[0]
    alone, together = (float((p[4000:].argmax(axis=1) == truth[4000:]).mean()) for p in (strong, pooled(members, pool)))
    assert together >= alone - 0.002


def test_a_bias_mends_labels_that_every_member_overlooks():
    truth = np.random.default_rng(0).integers(0, 3, 900)
    shy = [opinions(truth, 1.5, s) * [1.0, 1.0, 0.2] for s in (1, 2)]
    pool = choose_pool(np.stack([p / p.sum(axis=1, keepdims=True) for p in shy]), truth, stacking=True)
    assert pool.geometric
    assert pool.bias[2] > max(pool.bias[:2]) + 0.3


A, B, C = Span(0, 2, "X"), Span(1, 3, "X"), Span(3, 4, "Y")


def test_votes_need_support_and_do_not_overlap():
    answers = [[Output(spans=(A, C), span_scores=(0.9, 0.6))], [Output(spans=(A,), span_scores=(0.8,))], [Output(spans=(B,), span_scores=(1.0,))]]
    assert voted(answers, [1, 1, 1], 0.5)[0].spans == (A,)
    assert voted(answers, [1, 1, 1], 0.5)[0].span_scores == pytest.approx((1.7 / 3,))
    assert voted(answers, [1, 1, 1], 0.1)[0].spans == (A, C)
    assert voted(answers, [1, 1, 9], 0.5)[0].spans == (B,)
    assert voted([[Output(spans=())]], [1], 0.5)[0] == Output(spans=(), score=1.0, span_scores=())


def test_the_best_chain_of_overlapping_spans_wins():
    spans = [Span(0, 3, "X"), Span(2, 5, "X"), Span(4, 6, "X")]
    assert voted([[Output(spans=(spans[0], spans[2]), span_scores=(0.6, 0.6))], [Output(spans=(spans[1],), span_scores=(0.9,))]], [1, 1], 0.1)[0].spans == (spans[0], spans[2])


def test_votes_are_chosen_by_span_f1():
    truth = [(A,), (C,), ()] * 20
    good, bad = [Output(spans=t, span_scores=(0.9,) * len(t)) for t in truth], [Output(spans=(B,), span_scores=(0.7,))] * 60
    weights, threshold = choose_votes([good, bad], truth)
    assert [o.spans for o in voted([good, bad], weights, threshold)] == truth


def world(n, seed=0):
    rng = np.random.default_rng(seed)
    texts = ["".join(rng.choice(list("天地玄黄宇宙洪荒好坏"), 8)) for _ in range(n)]
    return Examples("classification", texts, ["good" if t.count("好") >= t.count("坏") else "bad" for t in texts])


def test_fitted_members_become_one_model(tmp_path):
    train, valid = world(300), world(100, 1)
    linear = families.get("linear")
    hypers = [Member(family="linear", hyper={"ngram_max": 1}), Member(family="linear", hyper={"ngram_max": 2}, seed=1)]
    members = [linear(linear.Hyper.model_validate(m.hyper), task="classification", seed=m.seed).fit(train, valid) for m in hypers]
    whole = Ensemble.of(members, hypers, valid)
    texts = world(50, 2).texts
    assert np.allclose(whole.probabilities(texts), pooled(np.stack([m.probabilities(texts) for m in members]), whole.pool_))
    whole.save(tmp_path)
    again = Ensemble.load(tmp_path, task="classification", hyper=whole.hyper, labels=whole.labels_)
    assert again.predict(texts, top_k=2) == whole.predict(texts, top_k=2)
    refit = Ensemble(whole.refit_hyper(), task="classification").fit(train + valid)
    assert refit.pool_ == whole.pool_
    (tmp_path / "pool.json").write_text("{")
    with pytest.raises(Broken, match=r"model\.damaged"):
        Ensemble.load(tmp_path, task="classification", hyper=whole.hyper, labels=whole.labels_)


def test_what_does_not_fit_together_is_refused():
    linear = families.get("linear")
    a = linear(task="classification").fit(Examples("classification", ["a", "b"], ["x", "y"]))
    b = linear(task="classification").fit(Examples("classification", ["a", "b"], ["x", "z"]))
    with pytest.raises(Invalid, match=r"ensemble\.labels-differ"):
        Ensemble.of([a, b], [Member(family="linear")] * 2, world(30))
    with pytest.raises(Invalid, match=r"ensemble\.nested"):
        Ensemble(EnsembleHyper(members=(Member(family="ensemble"),)), task="classification").fit(world(30))
    with pytest.raises(Invalid, match=r"ensemble\.weights-wrong"):
        Ensemble(EnsembleHyper(members=(Member(family="linear"),), pool={"weights": [1, 2]}), task="classification").fit(world(30))


def test_label_sets_are_averaged_and_said_from_a_threshold_on(tmp_path):
    rng = np.random.default_rng(0)
    words = {"甲": "运费", "乙": "退款", "丙": "发票"}
    sets = [tuple(sorted(label for label in words if rng.random() < 0.4)) for _ in range(300)]
    texts = ["".join(words[label] for label in names) + f"第{i}单" for i, names in enumerate(sets)]
    data = Examples("multilabel", texts, label_sets=sets)
    train, valid = data.take(range(200)), data.take(range(200, 300))
    linear = families.get("linear")
    members = [linear(task="multilabel", seed=s).fit(train, valid) for s in (0, 1)]
    model = Ensemble.of(members, [Member(family="linear"), Member(family="linear", seed=1)], valid)
    answers = model.predict(valid.texts)
    assert np.mean([sorted(o.labels) == sorted(names) for o, names in zip(answers, valid.label_sets, strict=True)]) > 0.95
    assert model.predict(["运费"], top_k=3)[0].scores.keys() == set(words)
    model.save(tmp_path)
    again = Ensemble.load(tmp_path, task="multilabel", hyper=model.hyper, labels=model.labels_)
    assert again.predict(valid.texts) == answers
    refitted = Ensemble(model.refit_hyper(), task="multilabel").fit(data)
    assert refitted.threshold_ == model.threshold_
    with pytest.raises(Unsupported, match=r"ensemble\.no-task"):
        encoder = families.get("encoder")(task="embedding")
        Ensemble.of([encoder, encoder], [Member(family="encoder")] * 2, Examples("embedding", ["x"]))


def test_shares_follow_the_member_that_knows_which_labels_hold():
    rng = np.random.default_rng(1)
    gold = rng.random((200, 4)) < 0.3
    good, bad = np.where(gold, 0.9, 0.1), rng.random((200, 4))
    assert choose_shares(np.stack([good, bad]), gold).weights[0] > 0.8
    assert choose_shares(np.stack([good, bad])[:, :5], gold[:5]) == Pool((0.5, 0.5))
