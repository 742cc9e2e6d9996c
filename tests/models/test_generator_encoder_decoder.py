"""Encoder-decoder directories of the transformers library, made here, in and out of the generator family; low-rank training of both kinds."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest
from test_generator import join

from wenfang.core.conversation import Generation, Message, written
from wenfang.core.errors import Invalid
from wenfang.core.examples import Examples
from wenfang.models import families

Generator = families.get("generator")
PROVERBS = ["好事成双", "坏事一件"]
CHARS = "天地玄黄好坏事成双一件"
SIZES = {"vocab_size": 64, "d_model": 32, "max_position_embeddings": 64}
BART = SIZES | {
    "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
    "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "dropout": 0.0,
}  # fmt: skip


def tokenizer(kind):
    """One token a character: as wordpieces between marks, or as unigrams with an end."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    letters = [*CHARS, *'{}[]":,1<>\n', "o", "k", "user", "assistant"]
    if kind == "wordpiece":
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, "##o", "##k"]
        made = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
        made.normalizer = normalizers.BertNormalizer()
        made.pre_tokenizer, made.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
        made.add_special_tokens(words[:4])
        made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
        return made
    pieces = ["<pad>", "<unk>", "<s>", "</s>", "▁", *letters, *(f"▁{c}" for c in CHARS), "<zh>"]
    made = Tokenizer(models.Unigram([(p, -1.0 if p != "▁" else -2.0) for p in pieces], unk_id=1))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    made.add_special_tokens(["<pad>", "<unk>", "<s>", "</s>", "<zh>"])
    code = kind == "language"
    made.post_processor = processors.TemplateProcessing(
        single="$A </s> <zh>" if code else "$A </s>", special_tokens=[("</s>", 3), ("<zh>", made.token_to_id("<zh>"))]
    )  # fmt: skip
    return made


def make(path, layout):
    import torch
    import transformers as t

    torch.manual_seed(0)
    kinds = {"bart": "wordpiece", "mbart": "language"}
    if layout == "t5":
        sizes = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_heads": 4, "dropout_rate": 0.0, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
        model = t.T5ForConditionalGeneration(t.T5Config(num_layers=1, num_decoder_layers=2, decoder_start_token_id=0, pad_token_id=0, eos_token_id=3, **sizes))
    elif layout == "mbart":
        model = t.MBartForConditionalGeneration(t.MBartConfig(**BART))
    elif layout == "pegasus":
        model = t.PegasusForConditionalGeneration(t.PegasusConfig(decoder_start_token_id=0, init_std=0.3, **BART))
    else:
        model = t.BartForConditionalGeneration(t.BartConfig(decoder_start_token_id=3, forced_bos_token_id=2, **BART))
    model.save_pretrained(path, safe_serialization=True)
    tokenizer(kinds.get(layout, "unigram")).save(str(path / "tokenizer.json"))
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def folder(layout):
        if layout not in made:
            made[layout] = make(tmp_path_factory.mktemp(layout), layout)
        return made[layout]

    return folder


def world(n, seed, task="generation"):
    rng = random.Random(seed)
    texts = ["".join(rng.choice("天地玄黄") for _ in range(rng.randint(0, 4))) + "好坏"[i % 2] for i in range(n)]
    return Examples(task, [written([Message("user", t)]) for t in texts] if task == "chat" else texts, targets=[PROVERBS[i % 2] for i in range(n)])


def fitted(folder, task="generation", n=80, **more):
    hyper = {"learning_rate": 0.01, "epochs": 12, "batch_tokens": 256, "threads": 1, "max_length": 64} | more
    return Generator(Generator.Hyper(pretrained=str(folder), **hyper), task=task).fit(world(n, 1, task), world(20, 2, task))


@pytest.mark.parametrize(("layout", "task"), [("t5", "chat"), ("bart", "generation"), ("mbart", "generation"), ("pegasus", "generation")])
def test_layouts_learn_and_write(folders, layout, task):
    model = fitted(folders(layout), task, epochs=20)
    fresh = world(30, 3, task)
    answers = model.predict(fresh.texts)
    assert np.mean([a.text == t for a, t in zip(answers, fresh.targets, strict=True)]) > 0.8
    assert [model.predict([t])[0].text for t in fresh.texts] == [a.text for a in answers]  # neighbours change nothing
    assert model.perplexity(fresh) < 1.5
    beams = model.generate(fresh.texts[:4], [Generation(beams=3), Generation(), Generation(temperature=1.0, seed=1), Generation(max_tokens=2)])
    assert [beams[i].text for i in (0, 1)] == [a.text for a in answers[:2]]
    assert beams[3].finish == "length"
    assert beams[3].tokens_out == 2
    join(model, fresh.texts[:4], [Generation(), Generation(beams=3), Generation(max_tokens=2), Generation(temperature=1.0, seed=1, max_tokens=12)])


def test_saved_and_served_without_torch(folders, tmp_path):
    model = fitted(folders("bart"))
    fresh = world(8, 3)
    answers = model.predict(fresh.texts)
    told = []
    model.generate(fresh.texts[:1], [Generation()], emit=lambda _, piece: told.append(piece))
    assert [piece for piece in told if piece] == list(answers[0].text)
    schema = {"type": "array", "items": {"enum": ["好", 1]}, "minItems": 1, "maxItems": 2}
    value = json.loads(model.generate(fresh.texts[:1], [Generation(json_schema=schema, max_tokens=30)])[0].text)
    assert set(value) <= {"好", 1}
    assert "好" not in model.generate(fresh.texts[:1], [Generation(forbidden=("好",))])[0].text
    model.save(tmp_path)
    code = (
        "import sys, pathlib; from wenfang.models import families; f = families.get('generator');"
        "m = f.load(pathlib.Path(sys.argv[1]), task='generation', hyper=f.Hyper.model_validate_json(sys.argv[2]), labels=[]);"
        "print([o.text for o in m.predict(sys.argv[3:])] == sys.stdin.read().split(), [h for h in ('torch', 'transformers') if h in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), model.hyper.model_dump_json(), *fresh.texts],
        input=" ".join(a.text for a in answers), capture_output=True, text=True, check=True, encoding="utf-8",
    )  # fmt: skip
    assert ran.stdout.split("\n")[0] == "True []"


def test_a_signed_version_is_served_by_a_replica_process(folders, tmp_path):
    from wenfang.guard.keys import Ed25519Signer
    from wenfang.models.bundle import write_bundle
    from wenfang.runtimes.host import LocalReplicaHost

    (tmp_path / "keys").mkdir(mode=0o700)
    model = fitted(folders("mbart"))
    info = write_bundle(tmp_path / "version", model, signer=Ed25519Signer(tmp_path / "keys"), card={}, lineage={})
    fresh = world(12, 3)
    options = [Generation(beams=1 + i % 3, max_tokens=6 + i % 2) for i in range(len(fresh))]
    host = LocalReplicaHost(tmp_path / "keys", arguments={"budget_s": 0.1})
    replica = host.start(info.folder)
    try:
        answers = replica.generate(fresh.texts, options)
        assert [a.text for a in answers] == [model.generate([t], [o])[0].text for t, o in zip(fresh.texts, options, strict=True)]
        with pytest.raises(Invalid, match="schema-unsupported"):
            replica.generate(fresh.texts[:2], [Generation(), Generation(json_schema={})])
        assert replica.generate(fresh.texts[:1], options[:1]) == answers[:1]
    finally:
        replica.close()


def test_it_writes_what_torch_would_write(folders):
    """Nothing is trained to speak of: the texts of the graphs are those of the library's own greedy search."""
    import torch
    import transformers

    folder = folders("t5")
    model = fitted(folder, n=2, learning_rate=1e-12, epochs=1)
    source = world(6, 4).texts
    ours = model.generate(source, [Generation(max_tokens=12, min_tokens=12)] * 6)
    body = transformers.T5ForConditionalGeneration.from_pretrained(folder).eval()
    tokens = tokenizer("unigram")
    for text, answer in zip(source, ours, strict=True):
        ids = torch.tensor([tokens.encode(text).ids])
        mute = [[i] for i in (*range(4), *range(tokens.get_vocab_size() - 1, 64))]
        theirs = body.generate(ids, max_new_tokens=12, do_sample=False, use_cache=False, bad_words_ids=mute)[0, 1:].tolist()
        assert "".join(tokens.id_to_token(i).replace("▁", " ") for i in theirs).removeprefix(" ") == answer.text


def test_words_are_parted_where_letters_meet():
    from wenfang.models.generation.subwords import Subwords

    tokens = Subwords(tokenizer("wordpiece").to_str().encode(), end=3)
    said = b""
    for token in tokens.encode("好ok o好"):
        said += tokens.speech.piece(said, token)
    assert said.decode() == "好ok o好"


@pytest.mark.parametrize("layout", ["t5", "bart"])
def test_low_rank_training(folders, layout, tmp_path):
    model = fitted(folders(layout), lora_rank=8, lora_alpha=32, epochs=25)
    fresh = world(30, 3)
    assert np.mean([a.text == t for a, t in zip(model.predict(fresh.texts), fresh.targets, strict=True)]) > 0.8
    assert len(model.found_["base_sha256"]) == 64
    assert "peft" in model.environment()
    model.save(tmp_path)
    again = Generator.load(tmp_path, task="generation", hyper=model.hyper, labels=[])
    assert again.predict(fresh.texts) == model.predict(fresh.texts)


def test_layers_that_are_not_there_are_named(folders):
    with pytest.raises(Invalid, match="lora-no-modules") as e:
        fitted(folders("bart"), lora_rank=4, lora_targets=("q_proj", "query"))
    assert e.value.fields["missing"] == ["query"]
    assert "q_proj" in e.value.fields["known"]
    with pytest.raises(Invalid, match="lora-unfit"):
        Generator(Generator.Hyper(lora_rank=4), task="generation").fit(world(4, 1))


def test_tokens_of_another_network_are_refused(folders, tmp_path):
    for path in folders("bart").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    other = json.loads((tmp_path / "tokenizer.json").read_text())
    other["model"]["vocab"] |= {f"字{i}": 100 + i for i in range(9)}
    (tmp_path / "tokenizer.json").write_text(json.dumps(other))
    with pytest.raises(Invalid, match="vocabulary-differs"):
        fitted(tmp_path)
