"""A cut vocabulary: equal tokens and equal answers for every text whose pieces are kept."""

import json
import random

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from wenfang.core.errors import Invalid
from wenfang.core.examples import Examples
from wenfang.models import families
from wenfang.models.neural.pretrained import open_pretrained
from wenfang.models.neural.tokens import SubwordTokens
from wenfang.models.neural.vocabulary import needed, pruned_tokenizer

Transformer = families.get("transformer")
FRAGMENTS = ["天地", "玄黄", "宇宙洪荒", "good", "goodness", " bad ", "badly", "2024", "，", "日月盈昃", "unlikely words", "寒来暑往"]
OTHERS = ["秋收冬藏", "elsewhere", "whatever", "云腾致雨", "unhappiness"]


def corpus(fragments, n, seed):
    rng = random.Random(seed)
    return ["".join(rng.choice(fragments) for _ in range(rng.randint(1, 6))) for _ in range(n)]


def tokenizer(kind):
    """One of each kind, trained on more than the texts that are kept."""
    texts = corpus(FRAGMENTS + OTHERS, 300, 1)
    special = ["<pad>", "<unk>", "<cls>", "<sep>"]
    if kind == "WordPiece":
        made = Tokenizer(models.WordPiece(unk_token="<unk>"))
        made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=260, special_tokens=special)
    elif kind == "bytes":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    elif kind == "BPE":
        made = Tokenizer(models.BPE(unk_token="<unk>"))
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special)
    else:
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>")
    made.train_from_iterator(texts, trainer)
    at = {name: made.token_to_id(name) for name in special}
    if kind == "WordPiece":
        made.post_processor = processors.BertProcessing(("<sep>", at["<sep>"]), ("<cls>", at["<cls>"]))
    else:
        made.post_processor = processors.TemplateProcessing(single="<cls> $A <sep>", pair="<cls> $A <sep> $B <sep>", special_tokens=[(n, at[n]) for n in ("<cls>", "<sep>")])
    return made.to_str().encode()


KINDS = ("WordPiece", "BPE", "bytes", "Unigram")


@pytest.fixture(scope="module")
def cut():
    """Of each kind: the whole tokens, the kept numbers, the cut tokens."""
    found = {}
    for kind in KINDS:
        whole = SubwordTokens(tokenizer(kind), pad=0)
        seen = {i for e in whole.encode(corpus(FRAGMENTS, 60, 2)) for i in e.ids.tolist()}
        kept = needed(whole.source, seen, pad=0, characters=False, path="x")
        found[kind] = whole, kept, SubwordTokens(pruned_tokenizer(whole.source, kept), pad=0)
    return found


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_text_of_kept_pieces_is_cut_alike(cut, kind, data):
    whole, kept, small = cut[kind]
    text = "".join(data.draw(st.lists(st.sampled_from([*FRAGMENTS, *OTHERS, "天", "g", "7", " "]), max_size=8)))
    (one,), (other,) = whole.encode([text]), small.encode([text])
    if np.isin(one.ids, kept).all():
        assert kept[other.ids].tolist() == one.ids.tolist()
        assert other.offsets.tolist() == one.offsets.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_needed_goes_and_special_tokens_stay(cut, kind):
    whole, kept, small = cut[kind]
    assert small.size == len(kept) < whole.size
    for name in ("prefix", "suffix", "between"):
        assert kept[list(getattr(small, name))].tolist() == list(getattr(whole, name))
    assert small.encode(["elsewhere 7 秋"])[0].ids.max() < len(kept)


def test_all_single_characters_may_stay(cut):
    for kind in KINDS:
        whole, kept, _ = cut[kind]
        seen = {i for e in whole.encode(corpus(FRAGMENTS, 60, 2)) for i in e.ids.tolist()}
        wide = needed(whole.source, seen, pad=0, characters=True, path="x")
        assert set(kept.tolist()) <= set(wide.tolist())
        (one,) = whole.encode(["秋"])
        assert np.isin(one.ids, wide).all()


def test_a_tokeniser_of_another_kind_is_refused():
    with pytest.raises(Invalid, match=r"neural\.vocabulary-fixed.*Other"):
        needed(b'{"model": {"type": "Other", "vocab": {}}}', [], pad=0, characters=True, path="x")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from transformers import BertConfig, BertModel

    path = tmp_path_factory.mktemp("bert")
    source = tokenizer("WordPiece")
    (path / "tokenizer.json").write_bytes(source)
    torch.manual_seed(0)
    size = SubwordTokens(source, pad=0).size
    config = BertConfig(vocab_size=size + 5, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=60)
    BertModel(config).save_pretrained(path, safe_serialization=True)
    return path


def test_a_cut_network_answers_as_the_whole_one(folder):
    texts = corpus(FRAGMENTS, 40, 2)
    torch.manual_seed(1)
    whole, tokens, _ = open_pretrained(folder, outputs=3, tagging=False, dropout=0.0)
    torch.manual_seed(1)
    small, fewer, _ = open_pretrained(folder, outputs=3, tagging=False, dropout=0.0, vocabulary="seen", texts=texts)
    assert small.told["vocabulary"]["kept"] == fewer.size < small.told["vocabulary"]["whole"]
    whole.eval(), small.eval()
    for one, other in zip(tokens.encode(texts), fewer.encode(texts), strict=True):
        both = [torch.tensor([[*t.prefix, *e.ids.tolist(), *t.suffix]]) for t, e in ((tokens, one), (fewer, other))]
        mask = torch.ones_like(both[0], dtype=torch.bool)
        with torch.inference_mode():
            assert small(both[1], mask) == pytest.approx(whole(both[0], mask), abs=1e-5)


@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_a_model_of_fewer_tokens_learns_the_same_in_less_room(folder, task, tmp_path):
    from wenfang.core.examples import Span

    texts = [t + "好坏"[i % 2] for i, t in enumerate(corpus(FRAGMENTS[:6], 80, 3))]
    labels = ["good" if i % 2 == 0 else "bad" for i in range(len(texts))]
    spans = [(Span(len(t) - 1, len(t), y),) for t, y in zip(texts, labels, strict=True)]
    train = Examples(task, texts, labels if task == "classification" else [], spans=spans if task == "tagging" else [])
    made = {}
    for vocabulary in ("whole", "seen"):
        hyper = Transformer.Hyper(
            pretrained=str(folder), vocabulary=vocabulary, epochs=2, learning_rate=1e-3, batch_tokens=256, threads=1, width="fp32", precision="fp32", dropout=0.0
        )
        made[vocabulary] = Transformer(hyper, task=task).fit(train)
    whole, small = made["whole"], made["seen"]
    for a, b in zip(whole.predict(texts), small.predict(texts), strict=True):
        assert (a.label, a.spans) == (b.label, b.spans)
        assert a.score == pytest.approx(b.score, abs=1e-5)
    assert len(small.onnx_) < len(whole.onnx_)
    ((key, fields),) = small.findings()
    assert key == "neural.vocabulary-cut"
    assert fields["kept"] < fields["whole"]
    small.save(tmp_path)
    again = Transformer.load(tmp_path, task=task, hyper=small.hyper, labels=small.labels_)
    assert again.predict([*texts, "unlikely 秋"]) == small.predict([*texts, "unlikely 秋"])
    assert len(json.loads((tmp_path / "tokenizer.json").read_bytes())["model"]["vocab"]) == fields["kept"]


def test_our_own_encoder_has_no_vocabulary_to_cut():
    with pytest.raises(Invalid, match=r"neural\.vocabulary-own"):
        Transformer(Transformer.Hyper(vocabulary="seen", epochs=1), task="classification").fit(Examples("classification", ["天", "地"], ["a", "b"]))
