"""The writer of our own: its numpy twin, rules, beams, streaming, and a fit that goes on after it was cut off."""

import json
import random
import re

import numpy as np
import pytest

from wenfang.core.conversation import Generation, Message, written
from wenfang.core.errors import Broken, Invalid
from wenfang.core.examples import Examples
from wenfang.core.ports import Cancelled, Quiet
from wenfang.models import Curve, families
from wenfang.models.generation.alphabet import BEGIN
from wenfang.models.generation.shape import WriterShape
from wenfang.models.generation.stepping import WriterSteps

Generator = families.get("generator")
SMALL = {"hidden": 32, "heads": 2, "ff": 64, "layers": 1, "min_count": 1, "learning_rate": 0.01, "dropout": 0.0, "epochs": 12, "batch_tokens": 256, "max_length": 96}
PROVERBS = ["好事成双乐无边", "坏事一件接一件"]


def world(n, seed, task="generation"):
    """The mark in the noise says which proverb comes."""
    rng = random.Random(seed)
    texts = []
    for i in range(n):
        noise = [rng.choice("天地玄黄宇宙洪荒") for _ in range(rng.randint(2, 12))]
        noise.insert(rng.randrange(len(noise)), "好坏"[i % 2])
        texts.append("".join(noise) if task == "generation" else written([Message("user", "".join(noise))]))
    return Examples(task, texts, targets=[PROVERBS[i % 2] for i in range(n)])


@pytest.fixture(scope="module", params=["decoder", "encoder-decoder"])
def model(request):
    return Generator(Generator.Hyper(kind=request.param, **SMALL), task="generation").fit(world(120, 1), world(40, 2))


@pytest.mark.parametrize("encoder_layers", [0, 2])
def test_the_numpy_twin_scores_as_torch_does(encoder_layers):
    import torch

    from wenfang.models.generation.network import Writer

    torch.manual_seed(0)
    shape = WriterShape(40, 3, encoder_layers, 32, 4, 48, 64)
    network = Writer(shape).eval()
    steps = WriterSteps(shape, {name: value.detach().numpy() for name, value in network.state_dict().items()})
    rng = np.random.default_rng(0)
    prompts = [rng.integers(10, 40, n).tolist() for n in (5, 0, 17)]
    written_ids = rng.integers(10, 40, (3, 40)).tolist()
    cache, scores = steps.begin(prompts)
    found = [scores]
    for t in range(40):
        cache, scores = steps.step(cache, [row[t] for row in written_ids])
        found.append(scores)
        cache = cache.take(np.array([0, 1, 2]))
    for row, prompt in enumerate(prompts):
        ids = torch.tensor([[*(prompt or ([0] if encoder_layers else [])), BEGIN, *written_ids[row]]])
        with torch.inference_mode():
            wanted = network(ids, ids > 0)[0].numpy()[-41:]
        assert np.abs(np.array([f[row] for f in found]) - wanted).max() < 1e-5
        chances = steps.log_probabilities(prompt, written_ids[row])
        log = wanted[:40] - np.log(np.exp(wanted[:40]).sum(axis=1, keepdims=True))
        assert np.abs(chances - log[np.arange(40), written_ids[row]]).max() < 1e-4


def test_it_learns_and_its_perplexity_says_so(model):
    fresh = world(40, 3)
    answers = model.predict(fresh.texts)
    assert sum(a.text == t for a, t in zip(answers, fresh.targets, strict=True)) >= 38
    assert {a.finish for a in answers} == {"stop"}
    assert model.perplexity(fresh) < 1.2
    assert model.found_["valid_perplexity"] < 1.2
    nats, tokens = model.losses(fresh)
    assert tokens.tolist() == [8] * 40
    assert np.isclose(np.exp(nats.sum() / tokens.sum()), model.perplexity(fresh))


def test_lengths_are_kept(model):
    text = world(1, 4).texts
    asked = Generation(max_tokens=3, logprobs=True)
    short = model.generate(text, [asked])[0]
    assert (short.text, short.finish, short.tokens_out, len(short.logprobs)) == ("好事成", "length", 3, 3)
    assert max(short.logprobs) <= 0
    assert model.generate(text, [Generation(min_tokens=12, max_tokens=12)])[0].tokens_out == 12


def test_stop_strings_are_cut_and_never_shown(model):
    pieces = []
    stopped = model.generate(world(1, 4).texts, [Generation(stop=("成双", "xyz"))], emit=lambda _, piece: pieces.append(piece))[0]
    assert (stopped.text, stopped.finish) == ("好事", "stop")
    assert "".join(pieces) == "好事"


def test_forbidden_words_do_not_come_even_across_tokens(model):
    for text in world(6, 5).texts:
        assert "事成" not in model.generate([text], [Generation(forbidden=("事成",), max_tokens=20)])[0].text


def test_no_n_gram_comes_twice(model):
    text = model.generate(world(1, 4).texts, [Generation(min_tokens=30, max_tokens=30, no_repeat=2)])[0].text
    pairs = [text[i : i + 2] for i in range(len(text) - 1)]
    assert len(pairs) == len(set(pairs))
    once = model.generate(world(1, 4).texts, [Generation(min_tokens=30, max_tokens=30, repetition_penalty=5.0)])[0].text
    assert len(set(once)) > len(set(model.generate(world(1, 4).texts, [Generation(min_tokens=30, max_tokens=30)])[0].text))


def test_beams_find_what_is_at_least_as_likely(model):
    for text in world(8, 6).texts:
        greedy, beams = model.generate([text] * 2, [Generation(logprobs=True), Generation(beams=4, logprobs=True)])
        assert np.mean(beams.logprobs) >= np.mean(greedy.logprobs) - 1e-6


def test_beams_give_signs_of_life_and_can_be_stopped(model):
    heard = []
    told = model.generate(world(1, 4).texts, [Generation(beams=4, min_tokens=12, max_tokens=12)], emit=lambda _, piece: heard.append(piece))[0]
    assert len(heard) >= 12
    assert [piece for piece in heard if piece] == [told.text]

    def leave(_, piece):
        raise Cancelled

    with pytest.raises(Cancelled):
        model.generate(world(1, 4).texts, [Generation(beams=4)], emit=leave)


def test_sampling_follows_its_seed_and_its_limits(model):
    text = world(1, 4).texts * 3
    one, same, other = model.generate(text, [Generation(temperature=3.0, seed=s, max_tokens=20) for s in (1, 1, 2)])
    assert one == same
    assert one.text != other.text
    greedy = model.predict(text[:1])[0].text
    assert model.generate(text[:1], [Generation(temperature=3.0, top_k=1, seed=5)])[0].text == greedy
    assert model.generate(text[:1], [Generation(temperature=1.0, top_p=0.01, seed=5)])[0].text == greedy


def test_json_comes_out_whole_whatever_the_model_thinks(model):
    schema = {
        "type": "object",
        "properties": {
            "标题": {"type": "string", "maxLength": 6},
            "n": {"type": "integer"},
            "kind": {"enum": ["好", "坏"]},
            "tags": {"type": "array", "items": {"type": "boolean"}, "minItems": 2},
            "of": {"anyOf": [{"$ref": "#/$defs/part"}, {"type": "string", "pattern": "^[a-c]{2}$"}]},
        },
        "$defs": {"part": {"type": "object", "properties": {"p": {"type": "integer", "minimum": 3, "maximum": 40}}, "required": ["p"]}},
        "required": ["标题", "n", "kind", "tags", "of"],
    }
    schema = json.loads(json.dumps(schema).replace("\\u6807\\u9898", "t"))
    for options in (
        Generation(json_schema=schema, max_tokens=90),
        Generation(json_schema=schema, max_tokens=90, beams=2),
        Generation(json_schema=schema, max_tokens=90, temperature=2.0, seed=1),
    ):
        answer = model.generate(world(1, 4).texts, [options])[0]
        value = json.loads(answer.text)
        assert set(value) == {"t", "n", "kind", "tags", "of"}
        assert 3 <= value["of"]["p"] <= 40 if isinstance(value["of"], dict) else re.fullmatch("[a-c]{2}", value["of"])
        assert isinstance(value["n"], int)
        assert value["kind"] in {"好", "坏"}
        assert len(value["t"]) <= 6
        assert len(value["tags"]) >= 2
        assert answer.finish == "stop"


@pytest.mark.parametrize(
    ("schema", "code", "max_tokens"),
    [
        ({"type": "string", "pattern": "(?=a)"}, "schema-unsupported", 50),
        ({"type": "string", "minLength": 1 << 30}, "schema-too-long", 50),
        ({"type": "object", "required": ["a"]}, "schema-wrong", 50),
        ({"type": "array", "items": {"type": "null"}, "minItems": 20}, "schema-too-long", 50),
        ({"const": "龘"}, "schema-unspellable", 50),
        ({}, "schema-unsupported", 50),
    ],
)
def test_schemas_that_cannot_be_kept_are_refused(model, schema, code, max_tokens):
    with pytest.raises(Invalid, match=code):
        model.generate(["天"], [Generation(json_schema=schema, max_tokens=max_tokens)])


def test_a_conversation_is_read_to_its_end():
    """The last turn decides, with or without turns before it."""
    model = Generator(Generator.Hyper(**SMALL), task="chat").fit(world(120, 1, "chat"), world(40, 2, "chat"))
    before = [Message("system", "天"), Message("user", "坏"), Message("assistant", "坏事一件接一件")]
    assert model.predict([written([Message("user", "天地好玄")]), "天地好玄"])[0].text == PROVERBS[0]
    assert model.predict([written([*before, Message("user", "天地玄黄" * 40)])])[0].finish in {"stop", "length"}


def test_a_fit_that_was_cut_off_goes_on_to_the_same_weights(tmp_path):
    class Stop(Quiet):
        def advance(self, n=1, **figures):
            if figures.get("step", 0) >= 3:
                raise Cancelled

    def fresh():
        return Generator(Generator.Hyper(**{**SMALL, "epochs": 5, "dropout": 0.1}), task="generation")

    whole = fresh().fit(world(60, 1), world(20, 2))
    with pytest.raises(Cancelled):
        fresh().fit(world(60, 1), world(20, 2), Curve(progress=Stop(), checkpoints=tmp_path / "c"))
    again = fresh().fit(world(60, 1), world(20, 2), Curve(checkpoints=tmp_path / "c"))
    assert all(np.array_equal(again.writer_.weights[name], value) for name, value in whole.writer_.weights.items())


def test_a_damaged_file_is_named(model, tmp_path):
    model.save(tmp_path)
    (tmp_path / "writer.safetensors").write_bytes(b"{}")
    with pytest.raises(Broken, match=r"model\.damaged"):
        Generator.load(tmp_path, task="generation", hyper=model.hyper, labels=[])


def test_little_training_does_not_make_it_silent():
    model = Generator(Generator.Hyper(**{**SMALL, "epochs": 0.05}), task="generation").fit(Examples("generation", ["天"] * 60, targets=["地"] * 60))
    assert all(o.text for o in model.predict(["天", "", "玄黄"]))


def join(model, sources, options):
    """Texts that begin a step apart become what they become alone."""
    alone = [model.generate([s], [o])[0] for s, o in zip(sources, options, strict=True)]
    joint, found, told = model.joint(), {}, {}
    for i, (source, option) in enumerate(zip(sources, options, strict=True)):
        told[i] = []
        assert joint.add(source, option, told[i].append) == i
        found.update(joint.step())
    nobodys = joint.add(sources[0], Generation(max_tokens=50, min_tokens=50), lambda _: None)
    while len(found) < len(sources):
        found.update(joint.step())
        joint.drop(nobodys)
    for i, one in enumerate(alone):
        assert (found[i].text, found[i].finish, found[i].tokens_in, found[i].tokens_out) == (one.text, one.finish, one.tokens_in, one.tokens_out)
        assert "".join(told[i]) == one.text
    assert joint.step() == []


def test_texts_that_join_become_what_they_become_alone(model):
    options = [Generation(), Generation(beams=3), Generation(temperature=1.0, seed=4, max_tokens=9, min_tokens=9), Generation(max_tokens=2), Generation(min_tokens=12)]
    join(model, ["天好", "地玄黄坏宇宙洪荒天地", "好", "天地玄黄坏", "玄好"], options)
    with pytest.raises(Invalid, match="schema-unsupported"):
        model.joint().add("天", Generation(json_schema={}), lambda _: None)
