"""A local directory of the transformers library, made here, in and out of the transformer family."""

import json
import random
import subprocess
import sys

import pytest

from wenfang.core.errors import Invalid
from wenfang.core.examples import Examples, Span
from wenfang.models import families

Transformer = families.get("transformer")
LETTERS = "天地玄黄宇宙洪荒好坏"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random BERT with a WordPiece vocabulary."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    path = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, "good", "##ly", "bad"]
    vocabulary = {w: i for i, w in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.save(str(path / "tokenizer.json"))
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=40)
    BertModel(config).save_pretrained(path, safe_serialization=True)
    return path


def world(task, n=160, seed=1):
    rng = random.Random(seed)
    texts, labels, spans = [], [], []
    for i in range(n):
        head = "".join(rng.choice(LETTERS[:8]) for _ in range(rng.randint(1, 10)))
        word, label = (("Goodly", "good"), ("bad", "bad"), ("好", "good"), ("坏", "bad"))[i % 4]
        texts.append(f"{head} {word} {head}")
        labels.append(label)
        spans.append((Span(len(head) + 1, len(head) + 1 + len(word), label),))
    return Examples(task, texts, labels if task == "classification" else [], spans=spans if task == "tagging" else [])


@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_round_trip(folder, task, tmp_path):
    hyper = Transformer.Hyper(pretrained=str(folder), learning_rate=3e-3, epochs=8, batch_tokens=256, threads=1, width="fp32", precision="fp32", dropout=0.0)
    model = Transformer(hyper, task=task).fit(world(task), world(task, 40, 2))
    assert model.found_["onnx_difference"] < 1e-4
    fresh = world(task, 60, 3)
    answers = model.predict(fresh.texts)
    right = [a.label == x for a, x in zip(answers, fresh.labels, strict=True)] if task == "classification" else [a.spans == x for a, x in zip(answers, fresh.spans, strict=True)]
    assert sum(right) / 60 > 0.9
    odd = ["", "\0", "\ud800好", "天" * 500, "ＧＯＯＤ"]
    for text, answer in zip(odd, model.predict(odd), strict=True):
        assert model.predict([text])[0].score == pytest.approx(answer.score, abs=1e-4)
    model.save(tmp_path)
    again = Transformer.load(tmp_path, task=task, hyper=hyper, labels=model.labels_)
    assert again.predict(odd + fresh.texts) == model.predict(odd + fresh.texts)
    code = f"""
import sys; from pathlib import Path; from wenfang.models import families
T = families.get("transformer")
T.load(Path({str(tmp_path)!r}), task={task!r}, hyper=T.Hyper(), labels=["bad", "good"]).predict(["天好地", ""])
print([m for m in ("torch", "transformers", "onnx") if m in sys.modules])"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_int8_of_a_pretrained_network(folder):
    hyper = Transformer.Hyper(pretrained=str(folder), epochs=1, threads=1, width="int8", precision="fp32")
    model = Transformer(hyper, task="classification").fit(world("classification"))
    assert model.width_ == "int8"
    assert 0 <= model.predict(["天好地"])[0].score <= 1


def copy_without(folder, to, *names):
    for file in folder.iterdir():
        if file.name not in names:
            (to / file.name).write_bytes(file.read_bytes())
    return to


def fit(path):
    Transformer(Transformer.Hyper(pretrained=str(path), epochs=1, threads=1), task="classification").fit(world("classification"))


def test_pickled_weights_are_refused(folder, tmp_path):
    (copy_without(folder, tmp_path, "model.safetensors") / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(Invalid, match=r"neural\.pickled-weights.*pytorch_model\.bin"):
        fit(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "model.safetensors"])
def test_what_is_missing_is_named(folder, tmp_path, name):
    copy_without(folder, tmp_path, name)
    with pytest.raises(Invalid, match=rf"neural\.pretrained-incomplete.*{name}"):
        fit(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "model.safetensors"])
def test_what_is_damaged_is_refused(folder, tmp_path, name):
    (copy_without(folder, tmp_path, name) / name).write_bytes(b"not this")
    with pytest.raises(Invalid, match=r"neural\.pretrained-unreadable"):
        fit(tmp_path)


def test_no_directory_no_model():
    with pytest.raises(Invalid, match=r"neural\.pretrained-missing"):
        fit("/nowhere/at-all")


def test_a_vocabulary_of_another_model_is_refused(folder, tmp_path):
    copy_without(folder, tmp_path)
    document = json.loads((tmp_path / "tokenizer.json").read_text())
    document["model"]["vocab"] |= {"extra": 999}
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(Invalid, match=r"neural\.vocabulary-differs.*1000"):
        fit(tmp_path)


def test_a_vocabulary_of_another_language_is_refused(folder):
    foreign = Examples("classification", ["春眠不觉晓处处闻啼鸟", "夜来风雨声花落知多少"], ["a", "b"])
    with pytest.raises(Invalid, match=r"neural\.vocabulary-foreign"):
        Transformer(Transformer.Hyper(pretrained=str(folder), epochs=1, threads=1), task="classification").fit(foreign)
