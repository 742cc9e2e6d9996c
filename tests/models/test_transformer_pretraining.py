"""Pre-training on raw texts: words by cohesion, masks, the loss of a language with rules, and a directory others start from."""

import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wenfang.core.errors import Invalid
from wenfang.core.examples import Examples
from wenfang.core.ports import Quiet
from wenfang.models import Curve, families
from wenfang.models.neural.folders import open_encoder
from wenfang.models.neural.masking import Cohesion, MaskedFeed
from wenfang.models.neural.pretraining import PretrainHyper, pretrain
from wenfang.models.neural.tokens import FIRST, UNK, CharTokens

Transformer = families.get("transformer")
WORDS = ["天地", "玄黄", "宇宙", "洪荒", "日月星", "盈昃"]
TINY = PretrainHyper(layers=1, hidden=32, heads=2, ff=64, epochs=6, batch_tokens=256, learning_rate=0.01, dropout=0.0, min_count=1, precision="fp32")
RUN = """
import pathlib, sys, wenfang.models.neural.loop as loop
sys.path.insert(0, sys.argv[1])
import test_transformer_pretraining as t
loop.CHECKPOINT_S, loop.CHECKPOINT_SHARE = 0.0, 1e9
t.pretrain(t.language(), pathlib.Path(sys.argv[2]) / "out", t.TINY, t.Curve(checkpoints=pathlib.Path(sys.argv[2]) / "state"))
"""


def language(n=400, seed=0):
    """Texts of six words in any order: a hidden character inside a word is known, a hidden word is a guess among six."""
    rng = random.Random(seed)
    return ["".join(rng.choice(WORDS) for _ in range(rng.randint(3, 8))) for _ in range(n)]


def cohesion_of(texts):
    tokens = CharTokens.learn(texts)
    cohesion = Cohesion(np.zeros(len(tokens), np.int64))
    cohesion.add(tokens.encode(texts))
    return tokens, cohesion


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("pretrained")
    curve = Curve()
    found = pretrain(language(), path, TINY, curve)
    return path, found, curve


def test_words_are_what_clings_together():
    rng = random.Random(0)
    odd = [chr(0x4E00 + i) for i in range(200)]
    texts = ["".join(rng.choice([*WORDS, *odd]) for _ in range(12)) for _ in range(1500)]
    tokens, cohesion = cohesion_of(texts)
    text = odd[0] + "天地" + odd[1] + "日月星"
    assert cohesion.words(tokens.encode([text])[0].ids).tolist() == [0, 1, 1, 2, 3, 3, 3]
    assert cohesion.words(np.zeros(0, np.int32)).tolist() == []


def test_masks_hide_the_asked_share_in_whole_words_and_differ_each_time():
    texts = language(300)
    tokens, cohesion = cohesion_of(texts)
    feed = MaskedFeed(texts, tokens, cohesion, rate=0.25, size=64, batch_tokens=512, count=sum(map(len, texts)) + 300)
    rng = np.random.default_rng(0)
    count, batches = feed.epoch(rng)
    batches = list(batches)
    assert abs(len(batches) - count) <= 0.2 * count + 1
    asked = sum(int((b.targets >= 0).sum()) for b in batches)
    total = sum(int(b.lengths.sum()) for b in batches)
    assert total == sum(map(len, texts))
    assert 0.2 < asked / total < 0.35
    hidden = sum(int((b.ids[b.targets >= 0] == UNK).sum()) for b in batches)
    assert 0.7 < hidden / asked < 0.9
    for b in batches:
        untouched = (b.targets < 0) & b.mask
        assert (b.ids[untouched] != UNK).all()
        assert b.ids[b.mask].min() >= UNK
        assert (b.targets[b.targets >= 0] >= FIRST).all()
    again, later = list(feed.epoch(np.random.default_rng(0))[1]), list(feed.epoch(rng)[1])
    assert all((x.ids == y.ids).all() for x, y in zip(batches, again, strict=True))
    assert any(x.ids.shape != y.ids.shape or (x.ids != y.ids).any() for x, y in zip(batches, later, strict=False))


def test_it_learns_the_rules_of_a_language(folder):
    _, found, curve = folder
    assert found["loss"] < 0.7 * math.log(13)
    assert curve.steps[-1].loss < curve.steps[0].loss
    assert found["characters"] == sum(map(len, language()))


def test_a_killed_pretraining_goes_on_to_the_same_bits(folder, tmp_path):
    env = os.environ | {"WENFANG_CRASH_AT": "61"}
    killed = subprocess.run([sys.executable, "-c", RUN, str(Path(__file__).parent), str(tmp_path)], env=env, capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr.decode()
    assert not (tmp_path / "out").exists()
    notes = []

    class Told(Quiet):
        def note(self, key, **fields):
            notes.append(key)

    pretrain(language(), tmp_path / "out", TINY, Curve(Told(), checkpoints=tmp_path / "state"))
    assert notes == ["neural.resumed"]
    assert (tmp_path / "out" / "encoder.safetensors").read_bytes() == (folder[0] / "encoder.safetensors").read_bytes()


@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_families_start_from_it_and_learn_new_characters(folder, task):
    from test_transformer_training import share_right, world  # 好 and 坏 are not in the language

    hyper = Transformer.Hyper(pretrained=str(folder[0]), epochs=8, learning_rate=0.01, batch_tokens=128, dropout=0.0, ngram_buckets=0, threads=1, width="fp32", precision="fp32")
    model = Transformer(hyper, task=task).fit(world(task), world(task, 60, 2))
    assert model.found_["onnx_difference"] < 1e-4
    assert share_right(model, task) > 0.9
    assert len(model.tokens_) > len(open_encoder(folder[0]).tokens)


def test_what_cannot_be_learned_from_is_named(tmp_path):
    with pytest.raises(Invalid, match=r"neural\.texts-once"):
        pretrain(iter(language()), tmp_path, TINY)
    with pytest.raises(Invalid, match=r"neural\.no-texts"):
        pretrain(["", "天"], tmp_path, TINY.model_copy(update={"min_count": 2}))


@pytest.mark.parametrize(
    ("harm", "code"),
    [("weights gone", "pretrained-incomplete"), ("bit flipped", "pretrained-unreadable"), ("no json", "pretrained-unreadable"), ("other characters", "vocabulary-differs")],
)
def test_a_damaged_directory_is_refused(folder, tmp_path, harm, code):
    head, weights = tmp_path / "encoder.json", tmp_path / "encoder.safetensors"
    for file in folder[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    if harm == "weights gone":
        weights.unlink()
    elif harm == "bit flipped":
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
    elif harm == "no json":
        head.write_text("[")
    else:
        document = json.loads(head.read_text())
        document["tokens"]["codes"].append(ord("好"))
        head.write_text(json.dumps(document))
    hyper = Transformer.Hyper(pretrained=str(tmp_path), epochs=1, threads=1)
    with pytest.raises(Invalid, match=rf"neural\.{code}"):
        Transformer(hyper, task="classification").fit(Examples("classification", ["天地", "宇宙"], ["a", "b"]))
