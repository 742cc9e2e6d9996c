"""Words as tokens of the transformer: what they are, where they stand, and that a model of them is served as it was trained."""

import json

import numpy as np
import pytest

from wenfang.core.errors import Invalid
from wenfang.core.examples import Examples, Span
from wenfang.models import DataShape, families
from wenfang.models.neural.stored_tokens import tokens_from_json
from wenfang.models.neural.tokens import UNK
from wenfang.models.neural.word_tokens import WordTokens


@pytest.mark.parametrize("text", ["", "  ", "play it, now", "周杰伦 的 song", "don't", "é́ x", "ＡＢ １２", "\ud800 a", "a\tb\nc"])
def test_words_stand_where_they_say(text):
    tokens = WordTokens.learn([text], buckets=64)
    (encoded,) = tokens.encode([text])
    assert encoded.grams.shape == (len(encoded.ids), tokens.gram_count)
    assert all(text[s:e].strip() == text[s:e] != "" for s, e in encoded.offsets)
    assert UNK not in encoded.ids


def test_case_and_width_fold_and_pieces_are_shared():
    tokens = WordTokens.learn(["Playing played"], buckets=1 << 16)
    a, b, c = (tokens.encode([t])[0] for t in ("PLAYING", "ｐｌａｙｉｎｇ", "player"))
    assert a.ids.tolist() == b.ids.tolist() != c.ids.tolist() == [UNK]
    assert a.grams[0, 1:3].tolist() == c.grams[0, 1:3].tolist()
    assert a.grams[0, 0] != c.grams[0, 0]


def test_words_survive_their_json():
    tokens = WordTokens.learn(["a b a", "周 \ud800x"], buckets=8)
    again = tokens_from_json(json.loads(json.dumps(tokens.to_json(), ensure_ascii=True)), {})
    for left, right in zip(tokens.encode(["a 周 q"]), again.encode(["a 周 q"]), strict=True):
        assert left.ids.tolist() == right.ids.tolist()
        assert left.grams.tolist() == right.grams.tolist()


SMALL = {
    "unit": "word",
    "hidden": 16,
    "heads": 2,
    "ff": 32,
    "layers": 1,
    "ngram_buckets": 256,
    "min_count": 1,
    "learning_rate": 0.02,
    "dropout": 0.0,
    "token_dropout": 0.0,
    "threads": 1,
    "epochs": 15,
    "batch_tokens": 128,
}


def world(task, n, seed=0):
    rng = np.random.default_rng(seed)
    texts, labels, spans = [], [], []
    for _ in range(n):
        verb, name = str(rng.choice(["play", "book"])), str(rng.choice(["alpha", "beta", "gamma"]))
        before = f"please {verb} the "
        texts.append(f"{before}{name} now")
        labels.append(verb)
        spans.append((Span(len(before), len(before) + len(name), "NAME"),))
    return Examples(task, texts, labels if task == "classification" else [], spans=spans if task == "tagging" else [])


@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_a_model_of_words(task, tmp_path):
    family = families.get("transformer")
    model = family(family.Hyper.model_validate(SMALL), task=task).fit(world(task, 120), world(task, 30, 1))
    fresh = world(task, 30, 2)
    answers = model.predict(fresh.texts)
    assert [o.label for o in answers] == fresh.labels if task == "classification" else [o.spans for o in answers] == fresh.spans
    model.save(tmp_path)
    again = family.load(tmp_path, task=task, hyper=model.hyper, labels=model.labels_)
    odd = ["", "\ud800", "a" * 3000, "词 word 词"]
    assert [(o.label, o.spans) for o in again.predict(fresh.texts + odd)] == [(o.label, o.spans) for o in model.predict(fresh.texts + odd)]


def test_words_are_tried_where_scripts_are_spaced_and_refused_on_pretrained_directories(tmp_path):
    family = families.get("transformer")
    assert next(iter(family.candidates(DataShape("classification", 1000, 3, 50.0, 90, spaced=1.0)))).unit == "word"
    assert next(iter(family.candidates(DataShape("classification", 1000, 3, 20.0, 40)))).unit == "character"
    (tmp_path / "encoder.json").write_text("{}")
    with pytest.raises(Invalid, match=r"neural\.words-unfit"):
        family(family.Hyper.model_validate({**SMALL, "pretrained": str(tmp_path)}), task="classification").fit(world("classification", 20))
