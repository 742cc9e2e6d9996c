"""Folds: what a small valid leaves undecided is decided by answers to train, in worlds where the truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from selection_world import InProcess, OracleHyper, Watcher, examples, family, luck

from wenfang.core.examples import Examples
from wenfang.core.ports import Cancelled
from wenfang.core.words import say
from wenfang.models import families
from wenfang.models.families.ensemble import Member
from wenfang.select.choose import Candidate, Limits, choose, finalists
from wenfang.select.explain import explain_text
from wenfang.select.folding import confirm_by_folds
from wenfang.select.journal import Journal
from wenfang.select.report import report
from wenfang.select.search import Search
from wenfang.select.selection import Plan, Ports, select, shape_of
from wenfang.select.trial import Run, figures_of, fit_here
from wenfang.select.wanted import judge
from wenfang.stats.scores import Counts, score

BETTER, WORSE = OracleHyper(error=0.02, salt="dear", delay_ms=0.4), OracleHyper(error=0.06, salt="cheap")
"""Of 100 validation examples one is wrong against four: nothing that a test could call a difference."""
TRAIN, VALID, TEST = 2000, 100, 300


def run(work, *families, budget_s=30.0, train=None, progress=None):
    host = InProcess(*families)
    parts = train or examples(TRAIN), examples(VALID, start=TRAIN), examples(TEST, start=TRAIN + VALID)
    ports = Ports(host, host.write, **({"progress": progress} if progress else {}))
    return select(*parts, families={f.__name__: f for f in families}, ports=ports, plan=Plan(budget_s), work=work)


def told(outcome):
    return dict(outcome.document["verdict"])


def pair(dear=BETTER, cheap=WORSE):
    return family("cheap", cheap), family("dear", dear, rank=2)


def test_folds_find_the_better_one_that_valid_cannot(tmp_path):
    cheap, dear = pair()
    outcome = run(tmp_path, cheap, dear)
    folds, test = outcome.document["folds"], outcome.document["choice"]["tests"][0]
    assert outcome.verdict["family"] == "dear"
    assert (folds["key"], folds["folds_n"], folds["n"]) == ("verdict.folds", 5, TRAIN + VALID)
    wrong = sum(luck(t, "cheap") < WORSE.error for t in examples(TRAIN + VALID).texts)
    assert 0.5 * wrong < (TRAIN + VALID) * (1 - folds["scores"]["cheap-1"]) <= wrong, "a wrong draw hits the right label one time in five"
    assert folds["scores"]["dear-1"] > folds["scores"]["cheap-1"]
    assert (test["best"], test["other"], test["n"]) == ("dear-1", "cheap-1", TRAIN + VALID)
    assert test["p_holm"] <= 0.05
    assert outcome.verdict["valid"]["high"] - outcome.verdict["valid"]["low"] > 0.01, "the interval of valid is that of valid"
    assert sum(f.endswith("fit") for f in dear.fits) - sum(f.endswith("refit") for f in dear.fits) == 6
    assert "verdict.clearly-best" in told(outcome)
    for lang in ("zh", "en"):
        sentence = say("verdict.folds", lang, **folds["fields"])
        assert "2100" in sentence
        assert sentence in explain_text(outcome.document, lang)
        assert "2100" in report(outcome.document, lang=lang)


def test_valid_alone_would_have_kept_the_cheaper_one():
    candidates = [_candidate(f, h) for f, h in zip(pair(), (WORSE, BETTER), strict=True)]
    assert finalists(candidates, Limits()) == ["dear", "cheap"]
    assert choose(candidates, Limits()).chosen == "cheap"


def _candidate(cls, hyper):
    valid = examples(VALID, start=TRAIN)
    model = cls(hyper, task="classification").fit(examples(TRAIN))
    right = np.array([[o.label == y] for o, y in zip(model.predict(valid.texts), valid.labels, strict=True)], np.int64)
    counts = Counts("accuracy", right)
    p99 = 1.0 + 10 * hyper.delay_ms
    return Candidate(cls.__name__, cls.__name__, score(counts), counts, {"p50_ms": p99, "p99_ms": p99, "memory_bytes": 1}, 1000)


def test_without_a_difference_the_cheaper_one_is_kept(tmp_path):
    cheap, dear = pair(dear=OracleHyper(error=0.05, salt="dear", delay_ms=0.4), cheap=OracleHyper(error=0.05, salt="cheap"))
    outcome = run(tmp_path, cheap, dear)
    assert outcome.verdict["family"] == "cheap"
    assert outcome.document["folds"]["n"] == TRAIN + VALID
    assert all(t["p_holm"] > 0.05 for t in outcome.document["choice"]["tests"])


def test_without_time_it_is_left_out_and_said(tmp_path):
    cheap, dear = pair(dear=BETTER.model_copy(update={"fit_s": 2.0}))
    outcome = run(tmp_path, cheap, dear, budget_s=6.0)
    folds = outcome.document["folds"]
    assert folds["key"] == "verdict.folds-no-time"
    assert folds["fields"]["need_s"] > folds["fields"]["left_s"]
    assert len([f for f in dear.fits if f.endswith(":fit")]) == 1, "nothing was begun"
    assert "explain.would-fold" not in explain_text(outcome.document, "en")
    assert "told apart by folds" in explain_text(outcome.document, "en")


def test_weighted_examples_are_no_measure(tmp_path):
    train = examples(TRAIN)
    train.weights.extend([0.5] * TRAIN)
    outcome = run(tmp_path, *pair(), train=train)
    assert outcome.document["folds"]["key"] == "verdict.folds-weighted"
    assert outcome.verdict["family"] == "cheap"


def test_a_fold_that_fails_leaves_valid_its_say(tmp_path):
    class Picky(family("dear", BETTER, rank=2)):
        def fit(self, train, valid=None, curve=None):
            if len(train) < TRAIN:
                raise MemoryError
            return super().fit(train, valid, curve)

    Picky.__name__ = "dear"
    outcome = run(tmp_path, family("cheap", WORSE), Picky)
    assert outcome.document["folds"]["key"] == "verdict.folds-failed"
    assert "MemoryError" in say("verdict.folds-failed", "en", **told(outcome)["verdict.folds-failed"])
    assert outcome.verdict["family"] == "cheap"


class Stopper(Watcher):
    """Stops the selection in the middle of its folds."""

    def advance(self, n=1, **figures):
        super().advance(n, **figures)
        if self.stages[-1] == "folds" and "run" in figures and sum("run" in f for f in self.figures) == 7:
            raise Cancelled


@pytest.mark.slow
def test_stopped_in_the_middle_it_goes_on_to_the_same_verdict(tmp_path):
    def verdict(outcome):
        return outcome.document["folds"], outcome.document["choice"]["tests"], outcome.verdict["family"], outcome.verdict["test"]

    whole = run(tmp_path / "whole", *pair())
    families = pair()
    with pytest.raises(Cancelled):
        run(tmp_path / "work", *families, progress=Stopper())
    again = run(tmp_path / "work", *families)
    assert verdict(again) == verdict(whole)
    assert sum(len(f.fits) for f in families) == 2 + 2 * 5 + 1 + 1, "of the folds that were done none is fitted again: only the fit that was cut off is"


def test_equal_texts_lie_in_one_fold(tmp_path):
    fits = []

    class Watched(family("dear", BETTER, rank=2)):
        learned = frozenset()

        def fit(self, train, valid=None, curve=None):
            self.learned = frozenset(train.texts)
            fits.append(len(train))
            return super().fit(train, valid, curve)

        def predict(self, texts, *, top_k=1):
            assert not self.learned & set(texts)
            return super().predict(texts, top_k=top_k)

    Watched.__name__ = "dear"
    once = examples(TRAIN // 2)
    outcome = run(tmp_path, family("cheap", WORSE), Watched, train=once + once)
    assert outcome.document["folds"]["folds_n"] == len(fits) - 2 == 5, "one fit in the search, five folds, one refit"
    assert outcome.document["folds"]["n"] == TRAIN + VALID


def made(name, right, p50=1.0, family=None):
    counts = Counts("accuracy", np.array(right, np.int64)[:, None])
    return Candidate(name, family or name, score(counts), counts, {"p50_ms": p50, "p99_ms": p50, "memory_bytes": 1}, 1000)


def pooled(share, n=5000, seed=0):
    return Counts("accuracy", (np.random.default_rng(seed).random((n, 1)) < share).astype(np.int64))


def test_folds_overrule_the_order_of_valid_and_choose_among_those_heard():
    rng = np.random.default_rng(1)
    lead, rival, unheard = (made(n, rng.random(300) < p, p50) for n, p, p50 in (("lead", 0.96, 4.0), ("rival", 0.95, 2.0), ("unheard", 0.95, 1.0)))
    folds = {"lead": pooled(0.93), "rival": pooled(0.97, seed=1)}
    choice = choose([lead, rival, unheard], Limits(), folds=folds)
    assert (choice.best, choice.chosen) == ("rival", "rival")
    assert {t.other: t.n for t in choice.tests} == {"lead": 5000, "unheard": 300}
    limited = choose([lead, rival, unheard], Limits(max_latency_ms=1.5), folds=folds)
    assert limited.chosen == "unheard", "where the limit leaves none of them, valid has its say again"


def test_both_looks_share_the_level():
    a, b = (made(n, [1] * k + [0] * (200 - k)) for n, k in (("a", 198), ("b", 191)))
    plain, looked = choose([a, b], Limits()).tests[0], choose([a, b], Limits(), folds={"a": a.counts, "c": a.counts}).tests[0]
    assert looked.p_holm == pytest.approx(5 * plain.p_holm)
    assert choose([a, b], Limits(), folds={"a": a.counts, "b": b.counts}).tests[0].p_holm == pytest.approx(1.25 * plain.p_holm)


def test_finalists_are_the_leader_the_cheapest_and_another_family():
    base = np.r_[np.ones(190), np.zeros(10)]
    right = {"lead": np.r_[base[:190], [1, 1], base[:8] * 0], "twin": base, "cheap": base, "other": base, "behind": np.r_[np.ones(100), np.zeros(100)]}
    cost = {"lead": 5.0, "twin": 5.0, "cheap": 1.0, "other": 5.0, "behind": 0.1}
    candidates = [made(n, r, cost[n], "lead" if n == "twin" else None) for n, r in right.items()]
    assert finalists(candidates, Limits()) == ["lead", "cheap", "other"]
    assert finalists([candidates[0], candidates[4]], Limits()) == ["lead"]
    assert finalists(candidates[:2], Limits()) == ["lead", "twin"]


def test_an_ensemble_takes_the_members_that_were_fitted_for_others(tmp_path):
    rng = np.random.default_rng(0)

    def data(n):
        texts = ["".join(rng.choice(list("天地玄黄宇宙洪荒好坏"), 8)) for _ in range(n)]
        return Examples("classification", texts, ["good" if t.count("好") >= t.count("坏") else "bad" for t in texts])

    known = {n: families.get(n) for n in ("linear", "ensemble")}
    train, valid = data(300), data(80)
    fitted = []

    def fit(model, *parts):
        fitted.append((model.name, len(parts[0])))
        return fit_here(model, *parts)

    def write(folder, model, card):
        host.write(folder, model, card)
        (folder / "weights.bin").write_bytes(b"-")

    host = InProcess(*known.values())
    search = Search(train, valid, plan=Plan(10.0), ports=Ports(host, write, fit), journal=Journal(tmp_path, "x"))
    search.run(known, shape_of(train))
    search.plan = replace(search.plan, budget_s=300.0)
    first = search.lanes[0].full[0]
    second = replace(first, name="linear-of-another-seed", seed=1)
    search.lanes[0].runs.append(second)
    members = [known["linear"](known["linear"].Hyper.model_validate(r.params), task="classification", seed=r.seed).fit(train, valid) for r in (first, second)]
    model = known["ensemble"].of(members, [Member(family="linear", hyper=r.params, seed=r.seed) for r in (first, second)], valid)
    both = Run("ensemble-1", "ensemble", 1, model.hyper.model_dump(mode="json"), 0, origin="assembled", fit_s=first.fit_s + second.fit_s, latency=first.latency, size_bytes=9)
    answers = model.predict(valid.texts)
    both.metrics = figures_of(judge(answers, valid))
    search.journal.keep_answers(both.name, answers)
    search.lanes[1].runs.append(both)
    fitted.clear()
    candidates = [
        Candidate(r.name, r.family, r.score, judge(search.journal.answers(r.name), valid).counts, {"p50_ms": cost, "p99_ms": cost, "memory_bytes": 1}, 9)
        for r, cost in ((both, 2.0), (first, 1.0))
    ]
    folds = confirm_by_folds(search, candidates)
    assert folds is not None
    assert set(folds.counts) == {"ensemble-1", first.name}
    assert folds.n == len(train) + len(valid)
    assert len(fitted) == 2 * folds.folds_n, "two members a fold, though two runs hold three"
    assert all(name == "linear" and n < len(train) for name, n in fitted)
