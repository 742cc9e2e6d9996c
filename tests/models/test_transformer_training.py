"""The training loop: what it survives, what it refuses, and every way of training it offers."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformer_world import SMALL as BASE
from transformer_world import world

from wenfang.core.errors import Broken, Invalid
from wenfang.core.ports import Quiet
from wenfang.models import Curve, families
from wenfang.models.neural.batches import Stacker, pieces_of
from wenfang.models.neural.encoder import Encoder, EncoderShape
from wenfang.models.neural.feeds import PieceFeed
from wenfang.models.neural.loop import Plan, Trainer
from wenfang.models.neural.objectives import ClassObjective
from wenfang.models.neural.tokens import CharTokens

Transformer = families.get("transformer")
SMALL = BASE | {"dropout": 0.1}
RUN = """
import json, sys, pathlib, wenfang.models.neural.loop as loop
sys.path.insert(0, sys.argv[1])
import test_transformer_training as t
loop.CHECKPOINT_S = 0.0
loop.CHECKPOINT_SHARE = 1e9
t.fitted(sys.argv[3], curve=t.Curve(checkpoints=pathlib.Path(sys.argv[2])), **json.loads(sys.argv[4]))
"""


def fitted(task, *, curve=None, seed=0, **hyper):
    model = Transformer(Transformer.Hyper(**(SMALL | {"epochs": 8, "batch_tokens": 128} | hyper)), task=task, seed=seed)
    return model.fit(world(task), world(task, 60, 2), curve)


def share_right(model, task):
    fresh = world(task, 100, 3)
    answers = model.predict(fresh.texts)
    gold = fresh.labels if task == "classification" else fresh.spans
    return sum((a.label if task == "classification" else a.spans) == g for a, g in zip(answers, gold, strict=True)) / 100


class Notes(Quiet):
    def __init__(self):
        self.keys = []

    def note(self, key, **fields):
        self.keys.append(key)


@pytest.mark.parametrize(
    ("task", "hyper", "crashes"), [("classification", {"average": 0.95, "accumulate": 2, "r_drop": 0.5}, (36, 101)), ("tagging", {"fgm": 0.3, "ngram_buckets": 0}, (55,))]
)
def test_a_killed_fit_goes_on_to_the_same_bits(task, hyper, crashes, tmp_path):
    whole = Curve()
    undisturbed = fitted(task, curve=whole, **hyper)
    for crash in crashes:  # somewhere between the file of a state and its pointer, counted over one process
        env = os.environ | {"WENFANG_CRASH_AT": str(crash)}
        killed = subprocess.run([sys.executable, "-c", RUN, str(Path(__file__).parent), str(tmp_path), task, json.dumps(hyper)], env=env, capture_output=True, check=False)
        assert killed.returncode == -9, killed.stderr.decode()
    notes = Notes()
    curve = Curve(notes, checkpoints=tmp_path)
    again = fitted(task, curve=curve, **hyper)
    assert notes.keys == ["neural.resumed"]
    assert again.onnx_ == undisturbed.onnx_
    if again.chain_ is not None:
        assert (again.chain_.step == undisturbed.chain_.step).all()
    assert curve.steps == whole.steps
    assert again.refit_hyper() == undisturbed.refit_hyper()


def test_a_finished_fit_is_not_fitted_again_and_another_request_is(tmp_path):
    first = fitted("classification", curve=Curve(checkpoints=tmp_path), epochs=2)
    notes = Notes()
    assert fitted("classification", curve=Curve(notes, checkpoints=tmp_path), epochs=2).onnx_ == first.onnx_
    assert notes.keys == ["neural.resumed"]
    other = Notes()
    fitted("classification", curve=Curve(other, checkpoints=tmp_path), epochs=2, seed=1)
    assert other.keys == []


@pytest.mark.parametrize("damage", ["state", "pointer", "values", "gone"])
def test_a_damaged_checkpoint_means_a_fresh_start(damage, tmp_path):
    first = fitted("classification", curve=Curve(checkpoints=tmp_path), epochs=2)
    (state,) = tmp_path.glob("state-*.safetensors")
    pointer = tmp_path / "checkpoint.json"
    if damage == "state":
        data = bytearray(state.read_bytes())
        data[len(data) // 2] ^= 1
        state.write_bytes(data)
    elif damage == "pointer":
        pointer.write_bytes(pointer.read_bytes()[:50])
    elif damage == "gone":
        state.unlink()
    else:  # whole, yet not of this network
        from safetensors.numpy import save_file

        save_file({"now/network.chars.weight": np.zeros((1, 1), np.float32)}, state)
        pointer.write_text(json.dumps(json.loads(pointer.read_text()) | {"sha256": hashlib.sha256(state.read_bytes()).hexdigest()}))
    notes = Notes()
    again = fitted("classification", curve=Curve(notes, checkpoints=tmp_path), epochs=2)
    assert notes.keys == ["neural.checkpoint-damaged"]
    assert again.onnx_ == first.onnx_


@pytest.mark.parametrize(
    ("task", "how"),
    [
        ("classification", {"average": 0.9}),
        ("classification", {"accumulate": 3}),
        ("classification", {"r_drop": 1.0}),
        ("classification", {"fgm": 0.5}),
        ("classification", {"loss": "focal"}),
        ("classification", {"loss": "class-balanced"}),
        ("classification", {"loss": "ldam"}),
        ("classification", {"logit_adjustment": 1.0}),
        ("classification", {"precision": "fp16", "ngram_buckets": 0}),
        ("tagging", {"average": 0.9}),
        ("tagging", {"r_drop": 0.5, "fgm": 0.3}),
        ("tagging", {"save_memory": True}),
    ],
)
def test_every_way_of_training_learns(task, how):
    assert share_right(fitted(task, epochs=12, **how), task) > 0.9


def test_saving_memory_changes_no_bit():
    plain, frugal = (fitted("classification", epochs=2, save_memory=saving) for saving in (False, True))
    assert plain.onnx_ == frugal.onnx_


class Tight(Encoder):
    """Asks for memory no machine has when the batch is larger than ``rows``."""

    rows = 3

    def forward(self, ids, mask, grams=None):
        if len(ids) > self.rows:
            torch.empty(1 << 50)
        return super().forward(ids, mask, grams)


def trainer(network_class, progress=None, **plan):
    torch.manual_seed(0)
    data = world("classification", 40)
    tokens = CharTokens.learn(data.texts)
    encoded = tokens.encode(data.texts)
    pieces = pieces_of(encoded, 32)
    stacker = Stacker(encoded, pieces, tokens)
    network = network_class(EncoderShape(len(tokens), 2, False, 1, 16, 2, 32, 0.0))
    labels = np.array([label == "good" for label in data.labels], np.int64)
    settings = {"epochs": 2, "decay_epochs": 2, "learning_rate": 0.01, "head_rate": 0.01, "gram_rate": 0.01, "patience": 3} | plan
    return network, Trainer(network, ClassObjective(labels, pieces, count=2), PieceFeed(stacker, 200), Plan(**settings), Curve(progress or Quiet()))


def test_too_large_a_batch_is_computed_in_parts_to_the_same_end():
    notes = Notes()
    (roomy, whole), (tight, halved) = trainer(Encoder), trainer(Tight, notes)
    whole.run(None)
    fitted = halved.run(None)
    assert fitted.parts > 1
    assert set(notes.keys) == {"neural.batch-halved"}
    for one, other in zip(roomy.parameters(), tight.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_memory_that_never_suffices_is_named():
    with pytest.raises(Broken, match=r"neural\.out-of-memory"):
        trainer(type("None_", (Tight,), {"rows": 0}))[1].run(None)


def test_a_loss_that_is_no_number_ends_the_fit():
    network, run = trainer(Encoder)
    with torch.no_grad():
        network.head.weight[0, 0] = float("nan")
    with pytest.raises(Invalid, match=r"neural\.not-finite.*0\.01"):
        run.run(None)
