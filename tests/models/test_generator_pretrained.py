"""A decoder-only directory of the transformers library, made here, in and out of the generator family."""

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
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random Qwen with a byte-level vocabulary without merges."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import Qwen2Config, Qwen2ForCausalLM

    path = tmp_path_factory.mktemp("qwen")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<end>": 0} | {c: i + 1 for i, c in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64, max_position_embeddings=128,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(path, safe_serialization=True)
    return path


def world(n, seed, task="generation"):
    rng = random.Random(seed)
    texts = ["".join(rng.choice("天地玄黄") for _ in range(rng.randint(0, 4))) + "好坏"[i % 2] for i in range(n)]
    return Examples(task, [written([Message("user", t)]) for t in texts] if task == "chat" else texts, targets=[PROVERBS[i % 2] for i in range(n)])


def fitted(folder, task, **more):
    hyper = Generator.Hyper(pretrained=str(folder), **{"learning_rate": 0.01, "epochs": 12, "batch_tokens": 512, "threads": 1, "dropout": 0.0, "max_length": 128} | more)
    return Generator(hyper, task=task).fit(world(80, 1, task), world(20, 2, task))


def test_round_trip(folder, tmp_path):
    task = "chat"
    model = fitted(folder, task)
    fresh = world(30, 3, task)
    answers = model.predict(fresh.texts)
    assert np.mean([a.text == t for a, t in zip(answers, fresh.targets, strict=True)]) > 0.8
    assert [model.predict([t])[0].text for t in fresh.texts] == [a.text for a in answers]
    assert model.perplexity(fresh) < 1.3
    join(model, fresh.texts[:4], [Generation(), Generation(beams=3), Generation(max_tokens=2), Generation(temperature=1.0, seed=1, max_tokens=12)])
    told = []
    model.generate(fresh.texts[:1], [Generation()], emit=lambda _, piece: told.append(piece))
    assert [piece for piece in told if piece] == list(answers[0].text)  # three bytes a character, only whole ones are told; between them signs of life
    value = json.loads(
        model.generate(fresh.texts[:1], [Generation(json_schema={"type": "array", "items": {"enum": ["好", 1]}, "minItems": 1, "maxItems": 2}, max_tokens=40)])[0].text
    )
    assert set(value) <= {"好", 1}
    model.save(tmp_path)
    code = (
        "import sys, pathlib; from wenfang.models import families; f = families.get('generator');"
        "m = f.load(pathlib.Path(sys.argv[1]), task=sys.argv[2], hyper=f.Hyper.model_validate_json(sys.argv[3]), labels=[]);"
        "print([o.text for o in m.predict(sys.argv[4:])] == sys.stdin.read().split(), [h for h in ('torch', 'transformers') if h in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), task, model.hyper.model_dump_json(), *fresh.texts[:8]],
        input=" ".join(a.text for a in answers[:8]), capture_output=True, text=True, check=True, encoding="utf-8",
    )  # fmt: skip
    assert ran.stdout.split("\n")[0] == "True []"


def test_low_rank_training(folder):
    fresh = world(10, 3)
    before = fitted(folder, "generation", lora_rank=1, lora_alpha=1e-6, epochs=1)
    after = fitted(folder, "generation", lora_rank=8, lora_alpha=64, lora_targets=["v_proj", "down_proj"], epochs=25, learning_rate=0.03)
    assert after.perplexity(fresh) < 0.85 * before.perplexity(fresh)  # the head keeps its tiny random rows, which cannot say more
    assert after.hyper.lora_targets == ("v_proj", "down_proj")


def test_directories_that_cannot_be_used_are_refused(folder, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"is_encoder_decoder": True}))
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(Invalid, match="pickled-weights"):
        fitted(tmp_path, "generation")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(Invalid, match="pretrained-unreadable"):
        fitted(tmp_path, "generation")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2", "eos_token_id": 0}))
    with pytest.raises(Invalid, match="pretrained-unreadable"):
        fitted(tmp_path, "generation")
