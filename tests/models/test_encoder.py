"""The encoder family: both kinds learn that near means alike, from texts alone and from pairs; vectors are what they promise to be."""

import random

import numpy as np
import pytest

from wenfang.core.errors import Broken, Invalid
from wenfang.core.examples import Examples
from wenfang.models import DataShape, families
from wenfang.models.bags import Recipe, bag_texts
from wenfang.models.latent import Latent, normalised

Encoder = families.get("encoder")
SMALL = {
    "kind": "neural", "dimension": 32, "hidden": 32, "heads": 2, "ff": 64, "layers": 1, "ngram_buckets": 256, "min_count": 1, "epochs": 8, "learning_rate": 0.005,
    "pairs_at_once": 32, "threads": 1, "max_length": 16, "dropout": 0.1,
}  # fmt: skip
TOPICS = ["退款到账时间", "快递物流单号", "发票抬头税号", "密码登录账户"]
SYNONYMS = [("退钱", "还款"), ("快递", "包裹"), ("发票", "税单"), ("密码", "口令")]


def texts_of(n, seed):
    rng = random.Random(seed)
    rows = [(rng.randrange(len(TOPICS)), "".join(rng.sample("天地玄黄宇宙洪荒", 2))) for _ in range(n)]
    return ["".join(rng.sample(TOPICS[t], 4)) + noise for t, noise in rows], [t for t, _ in rows]


def synonyms(n, seed, graded=False):
    """Two words that share no character mean the same; frames are noise."""
    rng = random.Random(seed)
    texts, others, labels = [], [], []
    for _ in range(n):
        i, j = rng.sample(range(len(SYNONYMS)), 2)
        alike = rng.random() < 0.5
        frames = rng.choices(["我的{}呢", "请问{}", "{}在哪里", "看一下{}吧"], k=2)
        texts.append(frames[0].format(SYNONYMS[i][0]))
        others.append(frames[1].format(SYNONYMS[i if alike else j][1]))
        labels.append(alike)
    if graded:
        return Examples("embedding", texts, texts_b=others, grades=[float(y) for y in labels])
    return Examples("matching", texts, ["yes" if y else "no" for y in labels], texts_b=others)


def vectors(model, texts):
    return np.stack([np.frombuffer(o.vector, "<f4") for o in model.predict(texts)])


@pytest.mark.parametrize("hyper", [{"dimension": 16, "min_count": 1}, SMALL], ids=["tfidf-svd", "neural"])
def test_texts_of_one_topic_lie_together(hyper, tmp_path):
    train, _ = texts_of(200, 1)
    model = Encoder(Encoder.Hyper.model_validate(hyper), task="embedding").fit(Examples("embedding", train))
    texts, topics = texts_of(60, 2)
    z = vectors(model, texts)
    assert z.shape[1] <= model.hyper.dimension
    assert np.allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)
    near = z @ z.T - 2 * np.eye(len(z))
    assert np.mean([topics[i] == t for i, t in zip(near.argmax(axis=1), topics, strict=True)]) > 0.6
    model.save(tmp_path)
    again = Encoder.load(tmp_path, task="embedding", hyper=model.hyper, labels=[])
    assert np.allclose(vectors(again, texts), z, atol=1e-5)
    assert model.match([texts[0]], [texts[0]])[0].score == pytest.approx(1.0, abs=1e-5)
    assert model.match([texts[0]], [texts[1]])[0].score == pytest.approx(float(z[0] @ z[1]), abs=1e-5)


@pytest.mark.parametrize("hyper", [{"dimension": 64, "min_count": 1}, {**SMALL, "epochs": 15}], ids=["tfidf-svd", "neural"])
def test_pairs_teach_what_characters_cannot(hyper):
    model = Encoder(Encoder.Hyper.model_validate(hyper), task="matching").fit(synonyms(400, 1), synonyms(80, 2))
    fresh = synonyms(200, 3)
    answers = model.match(fresh.texts, fresh.texts_b)
    right = np.mean([a.label == y for a, y in zip(answers, fresh.labels, strict=True)])
    assert model.labels_ == ["no", "yes"]
    assert all(0.5 <= a.score <= 1 for a in answers)
    assert right > (0.9 if hyper["min_count"] and "kind" in hyper else 0.45), "without a network unseen synonyms stay apart, and that must not hurt"


def test_grades_of_embedding_pairs_order_the_cosines():
    model = Encoder(Encoder.Hyper.model_validate({**SMALL, "epochs": 15, "hard": 0.0}), task="embedding").fit(synonyms(400, 1, graded=True), synonyms(80, 2, graded=True))
    fresh = synonyms(200, 3, graded=True)
    scores, grades = np.array([o.score for o in model.match(fresh.texts, fresh.texts_b)]), np.array(fresh.grades)
    assert scores[grades == 1].mean() > scores[grades == 0].mean() + 0.3
    assert model.found_["best_epoch"] > 0
    assert model.refit_hyper().epochs == model.found_["best_epoch"]


def test_a_long_text_is_read_to_its_end():
    train, _ = texts_of(100, 1)
    model = Encoder(Encoder.Hyper.model_validate({**SMALL, "epochs": 2}), task="embedding").fit(Examples("embedding", train))
    head, other = TOPICS[0] * 6, TOPICS[1] * 6
    a, b = vectors(model, [head + head, head + other])
    assert float(a @ b) < 0.999


def test_equal_seeds_make_equal_networks():
    train, _ = texts_of(100, 1)
    made = [Encoder(Encoder.Hyper.model_validate({**SMALL, "epochs": 3}), task="embedding", seed=s).fit(Examples("embedding", train)) for s in (1, 1, 2)]
    z = [vectors(m, train[:5]) for m in made]
    assert np.array_equal(z[0], z[1])
    assert not np.allclose(z[0], z[2])


def test_an_int8_network_is_verified_where_it_is_loaded(tmp_path):
    from safetensors.numpy import load_file, save_file

    model = Encoder(Encoder.Hyper(**{**SMALL, "epochs": 2, "int8": True}), task="embedding").fit(Examples("embedding", texts_of(60, 1)[0]))
    model.save(tmp_path)
    load = lambda: Encoder.load(tmp_path, task="embedding", hyper=model.hyper, labels=[])  # noqa: E731
    assert load().predict(["天地"]) == model.predict(["天地"])
    check = load_file(tmp_path / "check.safetensors")
    save_file(check | {"ids": check["ids"][::-1].copy()}, tmp_path / "check.safetensors")  # as if this machine computed otherwise
    with pytest.raises(Broken, match=r"neural\.int8-differs"):
        load()


def test_directions_are_those_of_a_full_decomposition():
    texts, _ = texts_of(300, 5)
    latent = Latent.learn(texts, dimension=8, longest=1, min_count=1, long_weight=1.0, flat=0.0, seed=0)
    bags = bag_texts(texts, latent.index, Recipe(1, 1))
    dense = np.zeros((len(texts), len(latent.index)))
    dense[np.repeat(np.arange(len(texts)), np.diff(bags.starts)), bags.rows] = bags.values
    counts = (dense > 0).sum(axis=0)
    dense *= np.log((1 + len(texts)) / (1 + counts)) + 1
    dense /= np.linalg.norm(dense, axis=1, keepdims=True)
    axes = np.linalg.svd(dense, full_matrices=False)[2][:8]
    best, z = normalised(dense @ axes.T), latent.vectors(texts)
    assert np.abs(best @ best.T - z @ z.T).mean() < 0.01


def test_bending_brings_alike_texts_together_and_unknown_texts_have_a_direction():
    texts = [f"{a}天地{b}" for a in "甲乙丙丁戊己" for b in "子丑寅卯辰巳午未申酉"]
    others = [t[0] + "玄黄" + t[3] for t in texts]
    latent = Latent.learn([*texts, *others], dimension=20, longest=1, min_count=1, long_weight=1.0, flat=0.5, seed=0)
    before, after = latent, latent.adapted(texts, others)
    near = [float((m.vectors(texts) * m.vectors(others)).sum(axis=1).mean()) for m in (before, after)]
    assert near[1] > near[0] + 0.1
    assert latent.adapted(texts[:10], others[:10]) is latent, "too few pairs to say"
    assert np.allclose(np.linalg.norm(latent.vectors(["", "zzz"]), axis=1), 1)


def test_candidates_begin_without_a_network_and_offer_every_pretrained_directory(tmp_path):
    found = list(Encoder.candidates(DataShape("embedding", 5000, 0, 20, 60, pretrained=(tmp_path,))))
    assert found[0].kind == "tfidf-svd"
    assert [h.pretrained for h in found if h.kind == "neural"] == [None, str(tmp_path)]
    assert all(h.kind == "tfidf-svd" for h in Encoder.candidates(DataShape("embedding", 100, 0, 20, 60)))


def test_it_refuses_what_it_cannot_do(tmp_path):
    model = Encoder(task="embedding")
    with pytest.raises(Invalid, match=r"model\.not-fitted"):
        model.predict(["a"])
    with pytest.raises(Invalid, match=r"neural\.pretrained-missing"):
        Encoder(Encoder.Hyper(kind="neural", pretrained=str(tmp_path / "none")), task="embedding").fit(Examples("embedding", ["a", "b"]))
    matching = Encoder(Encoder.Hyper(min_count=1), task="matching").fit(synonyms(60, 1))
    with pytest.raises(Invalid, match=r"model\.pairs-wanted"):
        matching.predict(["a"])
    matching.save(tmp_path)
    with pytest.raises(Broken, match=r"model\.damaged"):
        Encoder.load(tmp_path, task="matching", hyper=matching.hyper, labels=["a", "b", "c"])


def test_our_own_pretrained_directory_is_a_start(tmp_path):
    """Its characters and weights are taken over, and the mean of its states is the first vector."""
    import torch

    from wenfang.models.neural.encoder import Encoder as Network
    from wenfang.models.neural.encoder import EncoderShape
    from wenfang.models.neural.folders import save_encoder
    from wenfang.models.neural.tokens import CharTokens
    from wenfang.models.sentences import open_network

    train, _ = texts_of(60, 1)
    tokens = CharTokens.learn(train)
    torch.manual_seed(3)
    body = Network(EncoderShape(len(tokens), 0, False, 1, 32, 2, 64))
    save_encoder(tmp_path, body, tokens, {})
    hyper = Encoder.Hyper.model_validate({**SMALL, "pretrained": str(tmp_path), "epochs": 1})
    network, known, _ = open_network(hyper, [*train, "新"])
    assert known.chars.startswith(tokens.chars)
    assert torch.equal(network.state_dict()["chars.weight"][: len(tokens)], body.state_dict()["chars.weight"])
    assert torch.equal(network.head.weight[:, :32], torch.eye(32))
    model = Encoder(hyper, task="embedding").fit(Examples("embedding", train))
    assert np.allclose(np.linalg.norm(vectors(model, train[:3]), axis=1), 1, atol=1e-5)


def test_probabilities_are_honest_without_a_valid_set():
    """Labels that nothing explains: no pair may be called sure."""
    rng = random.Random(7)
    texts, others = (["".join(rng.sample("天地玄黄宇宙洪荒日月盈昃", 5)) for _ in range(400)] for _ in range(2))
    model = Encoder(Encoder.Hyper(min_count=1), task="matching").fit(Examples("matching", texts[:300], [rng.choice("ab") for _ in range(300)], texts_b=others[:300]))
    assert np.mean([a.score for a in model.match(texts[300:], others[300:])]) < 0.65
