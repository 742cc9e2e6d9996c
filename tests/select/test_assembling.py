"""Ensembles of what a search has fitted: made when they are better, inside the limits and the time."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from selection_world import InProcess

from wenfang.core.examples import Examples, Output, Span
from wenfang.models import families
from wenfang.select.assembling import assemble
from wenfang.select.choose import Limits
from wenfang.select.evaluate import evaluate
from wenfang.select.journal import Journal
from wenfang.select.plan import Plan, Ports
from wenfang.select.selection import select
from wenfang.select.trial import Run, figures_of


class Half:
    """Sure where a text has its own character, guessing elsewhere."""

    labels_ = ("bad", "good")
    task = "classification"

    def __init__(self, sees):
        self.sees, self.name, self.seed = sees, "linear", 0
        self.hyper = families.get("linear").Hyper()

    def probabilities(self, texts, texts_b=()):
        return np.array([_opinion(t, self.sees) for t in texts], np.float32)

    def refit_hyper(self):
        return self.hyper


def _opinion(text, sees):
    for good, bad in sees:
        if good in text:
            return [0.05, 0.95]
        if bad in text:
            return [0.95, 0.05]
    guess = 0.4 + 0.2 * (hash_of(text) % 2)
    return [guess, 1 - guess]


def hash_of(text):
    return sum(map(ord, text))


def world(n, seed=0):
    rng = np.random.default_rng(seed)
    marks = ["甲乙", "丙丁"]
    rows = [(marks[int(rng.integers(2))][k := int(rng.integers(2))] + "".join(rng.choice(list("天地玄黄"), 4)), ["good", "bad"][k]) for _ in range(n)]
    return Examples("classification", [t for t, _ in rows], [y for _, y in rows])


def run(name, score, fit_s=1.0, p99=1.0):
    made = Run(name, "linear", 1, families.get("linear").Hyper().model_dump(mode="json"), 0, fit_s=fit_s, size_bytes=10, latency={"p50_ms": p99, "p99_ms": p99, "memory_bytes": 1})
    made.metrics = {"score": score, "low": score, "high": score}
    return made


def halves(valid, **more):
    models = {"a": Half([("甲", "乙")]), "b": Half([("丙", "丁")])}
    runs = []
    for name, model in models.items():
        outputs = [Output(label=model.labels_[int(p.argmax())], score=float(p.max())) for p in model.probabilities(valid.texts)]
        runs.append(run(name, evaluate(outputs, valid, resamples=2).score, **more))
    return models, sorted(runs, key=lambda r: -r.score)


def test_members_that_complete_each_other_are_put_together():
    valid = world(200)
    models, runs = halves(valid)
    found = assemble(runs, valid, read=lambda r: models[r.name], limits=Limits(), left_s=lambda: 1e9, growth=1.1, seed=0)
    assert found.run.score > 0.97 > runs[0].score + 0.1
    assert (found.run.family, found.run.origin, found.run.fit_s) == ("ensemble", "assembled", 2.0)
    assert len(found.run.refit_params["members"]) == 2
    assert found.run.refit_params["pool"]["weights"]


@pytest.mark.parametrize(("limits", "left_s", "more"), [(Limits(max_latency_ms=1.5), 1e9, {}), (Limits(max_size_bytes=15), 1e9, {}), (Limits(), 1.0, {"fit_s": 5.0})])
def test_limits_and_the_time_of_a_refit_hold_for_all_members_together(limits, left_s, more):
    valid = world(200)
    models, runs = halves(valid, **more)
    assert assemble(runs, valid, read=lambda r: models[r.name], limits=limits, left_s=lambda: left_s, growth=1.1, seed=0) is None


def test_members_that_know_the_same_are_left_alone():
    valid = world(200)
    models, runs = halves(valid)
    twins = [runs[0], run("twin", runs[0].score)]
    assert assemble(twins, valid, read=lambda r: models[runs[0].name], limits=Limits(), left_s=lambda: 1e9, growth=1.1, seed=0) is None


def test_label_sets_are_put_together():
    rng = np.random.default_rng(0)
    names = ["甲", "乙"]
    sets = [tuple(n for n in names if rng.random() < 0.5) for _ in range(200)]
    texts = ["".join(s) + "天" for s in sets]
    valid = Examples("multilabel", texts, label_sets=sets)

    def knowing(known):
        sure = lambda ts, _b=(): np.array([[(0.9 if n in t else 0.1) if n == known else 0.3 for n in names] for t in ts], np.float32)  # noqa: E731
        return SimpleNamespace(labels_=names, task="multilabel", probabilities=sure, refit_hyper=lambda: families.get("linear").Hyper(), name="linear")

    models = {"a": knowing("甲"), "b": knowing("乙")}
    runs = [run(name, 0.6 if name == "a" else 0.55) for name in models]
    found = assemble(runs, valid, read=lambda r: models[r.name], limits=Limits(), left_s=lambda: 1e9, growth=1.1, seed=0)
    assert found.run.score == 1.0
    assert len(found.model.members_) == 2


def test_taggers_vote():
    texts = [f"{'甲' * (i % 2)}{'乙' * (i % 3 == 0)}天" for i in range(120)]
    spans = [tuple(Span(k, k + 1, c) for k, c in enumerate(t) if c in "甲乙") for t in texts]
    valid = Examples("tagging", texts, spans=spans)

    def tagger(known):
        predict = lambda ts: [Output(spans=tuple(Span(k, k + 1, c) for k, c in enumerate(t) if c == known), score=1.0) for t in ts]  # noqa: E731
        return SimpleNamespace(labels_=["乙", "甲"], task="tagging", predict=predict, opinion=predict, refit_hyper=lambda: families.get("crf").Hyper(), name="crf")

    models = {"a": tagger("甲"), "b": tagger("乙")}
    runs = []
    for name, model in models.items():
        made = run(name, evaluate(model.predict(texts), valid, resamples=2).score)
        made.family, made.params = "crf", families.get("crf").Hyper().model_dump(mode="json")
        runs.append(made)
    found = assemble(sorted(runs, key=lambda r: -r.score), valid, read=lambda r: models[r.name], limits=Limits(), left_s=lambda: 1e9, growth=1.1, seed=0)
    assert found.run.score == 1.0
    assert figures_of(found.evaluation)["score"] == 1.0


@pytest.mark.slow
def test_a_selection_tries_an_ensemble_once_and_goes_on_from_its_journal(tmp_path):
    known = {n: families.get(n) for n in ("linear", "ensemble", "majority")}
    host = InProcess(*known.values())
    rng = np.random.default_rng(0)

    def data(n):
        texts = ["".join(rng.choice(list("天地玄黄宇宙洪荒好坏"), 8)) for _ in range(n)]
        return Examples("classification", texts, ["good" if t.count("好") >= t.count("坏") else "bad" for t in texts])

    def write(folder, model, card):
        host.write(folder, model, card)
        (folder / "weights.bin").write_bytes(b"-")

    ports = Ports(host, write, read_bundle=lambda folder: host.start(folder).model)
    splits = data(300), data(150), data(100)
    outcome = select(*splits, families=known, ports=ports, plan=Plan(budget_s=20), work=tmp_path)
    tried = Journal(tmp_path, outcome_request(tmp_path)).find("assembled")
    assert len(tried) == 1
    assert tried[0]["found"] == any(r["origin"] == "assembled" for r in outcome.document["runs"])
    again = select(*splits, families=known, ports=ports, plan=Plan(budget_s=20), work=tmp_path)
    assert again.verdict["test"] == outcome.verdict["test"]


def outcome_request(work):
    return json.loads((work / "journal.jsonl").read_text().splitlines()[0])["request"]
