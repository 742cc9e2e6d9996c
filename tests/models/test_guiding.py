"""Hidden states of a teacher beside the loss of a student."""

import random

import numpy as np
import pytest
import torch
from transformer_world import SMALL, world

from wenfang.core.errors import Invalid
from wenfang.core.examples import Examples
from wenfang.models import DataShape, families
from wenfang.models.distilling import taught
from wenfang.models.neural.batches import Stacker, pieces_of
from wenfang.models.neural.encoder import Encoder, EncoderShape
from wenfang.models.neural.export import to_onnx
from wenfang.models.neural.guiding import Guided, Teacher, open_teacher
from wenfang.models.neural.loop import to_tensors
from wenfang.models.neural.objectives import ClassObjective
from wenfang.models.neural.tokens import CharTokens
from wenfang.models.neural.widths import serve_in
from wenfang.models.neural.word_tokens import WordTokens

Transformer = families.get("transformer")
LETTERS = "天地玄黄宇宙洪荒日月盈昃辰宿列张"
PLAIN = {"ngram_buckets": 0, "token_dropout": 0.0, "learning_rate": 0.005}


def order_world(n, seed):
    """The class is which of two marks comes first: no bag of characters tells it."""
    rng = random.Random(seed)
    texts, labels = [], []
    for _ in range(n):
        letters = [rng.choice(LETTERS) for _ in range(rng.randint(4, 12))]
        first, second = rng.sample(["好", "坏"], 2)
        a, b = sorted(rng.sample(range(len(letters) + 1), 2))
        letters.insert(b, second)
        letters.insert(a, first)
        texts.append("".join(letters))
        labels.append("good" if first == "好" else "bad")
    return Examples("classification", texts, labels)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Learned the order from many examples, with two layers."""
    hyper = Transformer.Hyper(**(SMALL | PLAIN | {"layers": 2, "hidden": 32, "ff": 64, "epochs": 8, "batch_tokens": 512}))
    model = Transformer(hyper, task="classification").fit(order_world(1500, 1))
    folder = tmp_path_factory.mktemp("teacher")
    model.save(folder)
    return model, folder


def right(model, examples):
    return np.mean([o.label == y for o, y in zip(model.predict(examples.texts), examples.labels, strict=True)])


def student_of(train, *, guide, seed=0, **more):
    hyper = Transformer.Hyper(**(SMALL | PLAIN | {"layers": 1, "epochs": 10, "batch_tokens": 256, "guide": guide and str(guide)} | more))
    return Transformer(hyper, task=train.task, seed=seed).fit(train)


def test_a_student_of_states_is_better_than_one_of_answers_alone(teacher):
    model, folder = teacher
    test = order_world(400, 3)
    assert right(model, test) > 0.95
    train = taught(order_world(30, 4), model, unlabelled=order_world(40, 5).texts)
    alone, guided = (np.mean([right(student_of(train, guide=g, seed=s, layers=2), test) for s in range(2)]) for g in (None, folder))
    assert guided > alone + 0.05


def test_a_guided_student_stands_alone_and_says_so(teacher, tmp_path):
    student = student_of(order_world(40, 6), guide=teacher[1], epochs=1)
    student.save(tmp_path)
    again = Transformer.load(tmp_path, task="classification", hyper=student.hyper, labels=student.labels_)
    texts = order_world(10, 7).texts
    assert again.predict(texts) == student.predict(texts)
    assert ("neural.guided", {"weight": 1.0}) in student.findings()
    tagger = student_of(world("tagging", 40), guide=teacher[1], epochs=1)  # a CRF of its own beside the maps
    assert tagger.predict(["天好地"])[0].spans is not None


def test_a_teacher_is_a_candidate_where_there_is_one(teacher):
    shape = DataShape("classification", 1000, 2, 9.0, 14, guide=teacher[1])
    assert [h.guide for h in Transformer.candidates(shape)].count(str(teacher[1])) == 1


def network_of(tokens, **sizes):
    torch.manual_seed(4)
    return Encoder(EncoderShape(len(tokens), 2, False, *[sizes.get(k, v) for k, v in {"layers": 3, "hidden": 16, "heads": 2, "ff": 32}.items()], dropout=0.0))


@pytest.mark.parametrize("width", ["fp32", "int8", "int8-static", "fp16"])
def test_states_read_off_the_graph_are_those_of_torch(width):
    tokens = CharTokens.learn([LETTERS])
    network, encoded = network_of(tokens), tokens.encode([LETTERS, "天地", ""])
    stacker = Stacker(encoded, pieces_of(encoded, 64), tokens)
    batch = stacker.stack(np.arange(3))
    whole = to_onnx(network, batch)
    read = Teacher(serve_in(width, whole, [batch], judge=None).onnx, tokens, 64)
    assert read.widths == [16, 16, 16]
    network.train()
    network.watched = True
    network.scores(*to_tensors(batch, torch.device("cpu")))
    for one, told in zip(read.session.every(batch), network.states, strict=True):
        other = told.detach().numpy()
        assert np.abs(one - other)[batch.mask].max() < (1e-5 if width == "fp32" else 0.2 * other.std())


def test_states_of_a_traced_network_are_found_by_its_layers(tmp_path):
    from transformers import BertConfig, BertModel

    from wenfang.models.neural.pretrained import Pretrained

    body = BertModel(
        BertConfig(vocab_size=30, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64, max_position_embeddings=40), add_pooling_layer=False
    )
    network = Pretrained(body.eval(), hidden=32, outputs=2, tagging=False, dropout=0.0)
    tokens = CharTokens.learn([LETTERS])
    encoded = tokens.encode([LETTERS, "天地"])
    batch = Stacker(encoded, pieces_of(encoded, 30), tokens).stack(np.arange(2))
    read = Teacher(to_onnx(network, batch), tokens, 30)
    assert read.widths == network.state_widths() == [32, 32, 32]
    with torch.inference_mode():
        wanted = body(input_ids=torch.from_numpy(batch.ids).long(), attention_mask=torch.from_numpy(batch.mask).long(), output_hidden_states=True).hidden_states[1:]
    for one, other in zip(read.session.every(batch), wanted, strict=True):
        assert np.abs(one - other.numpy())[batch.mask].max() < 1e-4


def test_tokens_meet_where_they_stand_in_the_text():
    """A student of words beside a teacher of characters: each word gets the state of its first character."""
    text = "alpha be  gamma"
    letters, words = CharTokens.learn([text]), WordTokens.learn([text], min_count=1, buckets=8)
    read = Teacher(to_onnx(network_of(letters), Stacker(letters.encode([text, "a"]), pieces_of(letters.encode([text, "a"]), 64), letters).stack(np.arange(2))), letters, 64)
    encoded = words.encode([text])
    stacker = Stacker(encoded, pieces_of(encoded, 64), words)
    student = Encoder(EncoderShape(len(words), 2, False, 1, 16, 2, 32, dropout=0.0))
    inner = ClassObjective(np.array([0]), stacker.pieces, count=2)
    guided = Guided(inner, student, read, texts=[text], stacker=stacker, strength=1.0)
    assert guided.mapped == [2]
    (places, (states,)) = guided.told(np.arange(1))[0]
    whole = read.session.every(Stacker(letters.encode([text]), pieces_of(letters.encode([text]), 64), letters).stack(np.arange(1)))[2][0]
    starts = encoded[0].offsets[:, 0]
    assert places.tolist() == [0, *(1 + np.arange(len(starts)))]
    assert states == pytest.approx(whole[[0, *(1 + starts)]], abs=1e-2)


def test_what_cannot_guide_is_refused(teacher, tmp_path):
    with pytest.raises(Invalid, match=r"neural\.guide-missing"):
        student_of(order_world(20, 1), guide=tmp_path / "nowhere")
    with pytest.raises(Invalid, match=r"neural\.guide-shallow"):
        student_of(order_world(20, 1), guide=teacher[1], layers=0)
    pairs = Examples("matching", ["天", "地"], ["a", "b"], texts_b=["天", "地"])
    with pytest.raises(Invalid, match=r"neural\.guide-pairs"):
        student_of(pairs, guide=teacher[1])
    for file in teacher[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.onnx").write_bytes(b"not this")
    with pytest.raises(Invalid, match=r"neural\.guide-missing"):
        open_teacher(tmp_path)
