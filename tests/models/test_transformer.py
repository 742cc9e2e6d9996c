"""The transformer family on worlds with known answers."""

import subprocess
import sys
import time
from dataclasses import replace

import pytest
from transformer_world import SMALL, world

from wenfang.core.errors import Broken, Invalid
from wenfang.core.examples import Examples, Span
from wenfang.core.ports import Cancelled, Quiet
from wenfang.models import Curve, DataShape, families

Transformer = families.get("transformer")
ODD = ["", "\0", "\ud800", " ", "😀" * 3, "a" * 3000]


def fitted(task, *, valid=True, curve=None, seed=0, **hyper):
    data = world(task)
    model = Transformer(Transformer.Hyper(**(SMALL | {"epochs": 12, "batch_tokens": 128} | hyper)), task=task, seed=seed)
    return model.fit(data, world(task, 60, 2) if valid else None, curve)


def share_right(model, task):
    fresh = world(task, 100, 3)
    answers = model.predict(fresh.texts)
    return (
        sum((a.label == label) for a, label in zip(answers, fresh.labels, strict=True)) / 100
        if task == "classification"
        else sum((a.spans == s) for a, s in zip(answers, fresh.spans, strict=True)) / 100
    )


@pytest.fixture(scope="module")
def models():
    return {task: fitted(task) for task in ("classification", "tagging")}


@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_it_learns(models, task):
    assert share_right(models[task], task) > 0.95


def test_softmax_head_learns_tags_and_answers_legal_spans():
    model = fitted("tagging", head="softmax")
    assert share_right(model, "tagging") > 0.9
    assert all(0 <= a.score <= 1 for a in model.predict(ODD))


@pytest.mark.parametrize("task", ["classification", "tagging"])
@pytest.mark.parametrize("width", ["fp32", "fp16", "int8", "int8-static"])
def test_any_text_alone_or_among_others(models, task, width):
    model = models[task] if width == "fp32" else fitted(task, width=width, epochs=2)
    texts = ODD + world(task, 30, 5).texts
    together = model.predict(texts)
    for text, answer in zip(texts, together, strict=True):
        (alone,) = model.predict([text])
        assert (alone.label, alone.spans) == (answer.label, answer.spans)
        assert alone.score == pytest.approx(answer.score, abs=1e-4)
    assert model.predict([]) == []


@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_save_and_load_answer_the_same(models, task, tmp_path):
    model = models[task]
    model.save(tmp_path)
    assert all(p.suffix in {".onnx", ".json", ".safetensors"} for p in tmp_path.iterdir())
    again = Transformer.load(tmp_path, task=task, hyper=model.hyper, labels=model.labels_)
    texts = ODD + world(task, 20, 6).texts
    assert again.predict(texts) == model.predict(texts)


def test_loading_and_predicting_never_import_torch(models, tmp_path):
    models["tagging"].save(tmp_path)
    code = f"""
import sys; from pathlib import Path; from wenfang.models import families
T = families.get("transformer")
m = T.load(Path({str(tmp_path)!r}), task="tagging", hyper=T.Hyper(), labels=["bad", "good"])
m.predict(["天好地", ""])
print([m for m in ("torch", "transformers", "onnx", "sklearn", "tokenizers", "polars") if m in sys.modules])"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("file", ["model.onnx", "tokens.json"])
def test_damaged_files_are_refused(models, tmp_path, file):
    models["classification"].save(tmp_path)
    (tmp_path / file).write_bytes(b"{}")
    with pytest.raises(Broken, match=r"neural\.bad"):
        Transformer.load(tmp_path, task="classification", hyper=Transformer.Hyper(), labels=["bad", "good"])


@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_equal_seeds_give_equal_models(task):
    one, two, other = (fitted(task, seed=seed, epochs=2, dropout=0.2) for seed in (1, 1, 2))
    assert one.onnx_ == two.onnx_
    assert one.onnx_ != other.onnx_


def test_refit_trains_as_long_as_early_stopping_found():
    model = fitted("classification", epochs=6)
    hyper = model.refit_hyper()
    assert hyper.epochs == model.found_["best_epoch"]
    curve = Curve()
    again = Transformer(hyper, task="classification").fit(world("classification"), None, curve)
    assert curve.steps[-1].step == pytest.approx(hyper.epochs)
    assert share_right(again, "classification") > 0.9
    assert again.refit_hyper().epochs == pytest.approx(hyper.epochs)


def test_early_stopping_gives_back_the_best_state():
    curve = Curve()
    model = fitted("classification", curve=curve, epochs=30, patience=2)
    scores = [s.valid_score for s in curve.steps]
    assert len(scores) < 30
    valid = world("classification", 60, 2)
    right = sum(a.label == label for a, label in zip(model.predict(valid.texts), valid.labels, strict=True)) / 60
    assert right == pytest.approx(max(scores))


@pytest.mark.parametrize("seconds", [0.0, 0.6])
@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_a_deadline_is_kept_and_the_model_answers(task, seconds):
    curve = Curve(deadline=time.monotonic() + seconds)
    start = time.monotonic()
    model = fitted(task, curve=curve, epochs=1000, patience=1000)
    assert time.monotonic() - start < seconds + 5  # an order of magnitude below the full fit, with room for a busy machine
    assert model.predict(["天好地"])[0].score is not None


def test_cancelling_stops_a_fit():
    class Impatient(Quiet):
        def advance(self, n=1, **figures):
            raise Cancelled

    with pytest.raises(Cancelled):
        fitted("classification", curve=Curve(progress=Impatient()))


def test_long_texts_are_read_to_their_end():
    model = fitted("tagging", max_length=16)
    filler = "天地玄黄宇宙洪荒" * 40
    (answer,) = model.predict([filler + "好" + filler + "坏" + filler])
    assert [(s.start, s.label) for s in answer.spans] == [(319, "bad"), (640, "good")]
    long_class = fitted("classification", max_length=8)
    sure, other = long_class.predict(["天地" * 3 + "好" * 40, "天地" * 3 + "坏" * 40])
    assert (sure.label, other.label) == ("bad", "good")


def test_a_hundred_thousand_characters():
    model = fitted("tagging", epochs=1)
    text = "天地玄黄" * 25_000
    (answer,) = model.predict([text])
    assert answer.spans is not None
    assert all(0 <= s.start < s.end <= len(text) for s in answer.spans)


def test_class_weights_and_smoothing_train():
    model = fitted("classification", class_weights=True, label_smoothing=0.1)
    assert share_right(model, "classification") > 0.9
    assert model.predict(["天好地"], top_k=2)[0].scores.keys() == {"bad", "good"}


def test_the_width_that_is_chosen_stays_with_the_score_and_says_why():
    exact, free = fitted("classification", epochs=4), fitted("classification", epochs=4, width="auto")
    assert share_right(free, "classification") >= share_right(exact, "classification") - 0.02
    tried = {t["width"]: t for t in free.found_["widths"]}
    assert tried.keys() == {"fp32", "fp16", "int8", "int8-static"}
    assert tried[free.width_]["score"] >= tried["fp32"]["score"] - 0.002
    assert free.refit_hyper().width == free.width_


def test_threads_and_seed_of_the_process_stay_as_they_were():
    import torch

    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    fitted("classification", epochs=1)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)


def test_too_little_data_is_named():
    with pytest.raises(Invalid, match=r"model\.no-examples"):
        Transformer(task="classification").fit(Examples("classification", []))
    one = replace(world("classification", 4), labels=["a"] * 4)
    with pytest.raises(Invalid, match=r"model\.too-few-labels"):
        Transformer(task="classification").fit(one)


def test_valid_may_hold_labels_never_seen():
    data = world("tagging", 40)
    valid = replace(world("tagging", 10, 4), spans=[(Span(0, 1, "new"),)] * 10)
    model = Transformer(Transformer.Hyper(**SMALL, epochs=1), task="tagging").fit(data, valid)
    assert model.labels_ == ["bad", "good"]


def test_candidates_are_legal_and_small_first(tmp_path):
    shape = DataShape("classification", 1000, 3, 20.0, 5000, (tmp_path,))
    found = list(Transformer.candidates(shape))
    assert found[0].hidden <= found[1].hidden
    assert found[-1].pretrained == str(tmp_path)
    (tmp_path / "encoder.json").write_text("{}")
    ours = list(Transformer.candidates(shape))[-1]
    assert (ours.pretrained, ours.epochs) == (str(tmp_path), found[0].epochs)
    assert all(Transformer.Hyper(**h.model_dump()) == h for h in found)


@pytest.mark.parametrize(("task", "width"), [("classification", "int8"), ("tagging", "int8"), ("tagging", "int8-static")])
def test_int8_is_verified_where_it_is_loaded(task, width, tmp_path):
    from safetensors.numpy import load_file, save_file

    model = fitted(task, width=width, epochs=2)
    model.save(tmp_path)
    texts = world(task, 10, 6).texts
    assert Transformer.load(tmp_path, task=task, hyper=model.hyper, labels=model.labels_).predict(texts) == model.predict(texts)
    check = load_file(tmp_path / "check.safetensors")
    save_file(check | {"ids": check["ids"][::-1].copy()}, tmp_path / "check.safetensors")  # as if this machine computed otherwise
    with pytest.raises(Broken, match=r"neural\.int8-differs"):
        Transformer.load(tmp_path, task=task, hyper=model.hyper, labels=model.labels_)
