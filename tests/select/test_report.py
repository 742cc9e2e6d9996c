"""The report of every task: whole, in two languages, without a text nobody asked for."""

import copy
import html
import random
import re

import pytest
from selection_world import InProcess, Oracle, OracleHyper, examples, family

from wenfang.core.examples import Examples, Output, Reply, Span
from wenfang.select.checks import read_checks
from wenfang.select.evaluate import evaluate
from wenfang.select.latency import Latency
from wenfang.select.plan import Plan, Ports
from wenfang.select.plots_checks import Range, histogram, ranges, scatter
from wenfang.select.report import report
from wenfang.select.scrutiny import look_closer
from wenfang.select.selection import select

LATENCY = Latency(1.8, 3.0, 500_000_000, 500, 3, 0.2)
TEXTS = [f"私密文本{i}{'很长' * (i % 9)}" for i in range(120)]
IDS = [f"ex_{i}" for i in range(120)]


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    good = family("good", OracleHyper(error=0.1))
    host = InProcess(good)
    groups = [["南", "北"][i % 2] for i in range(120)]
    train, valid, test = (examples(120, start=s) for s in (0, 120, 240))
    test = Examples("classification", test.texts, test.labels, ids=test.ids, groups=groups)
    checks = read_checks("[price]\ncore_hour = 0.5\n[report]\nexamples = 3\n")
    outcome = select(train, valid, test, families={"good": good}, ports=Ports(host, host.write), plan=Plan(12.0, checks=checks), work=tmp_path_factory.mktemp("w") / "w")
    return outcome.document


def whole(page, lang):
    assert f'lang="{lang}"' in page
    words = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    assert re.findall(r"\b(?:report|slice|robustness|verdict|select)\.[a-z0-9_-]+", words) == [], "a key without words"
    assert re.findall(r"\bnan\b|\{", words) == []
    assert page.count("<section") == page.count("</section") >= 8
    return html.unescape(page)


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_classification_shows_everything(document, lang):
    page = whole(report(document, lang=lang), lang)
    for word in {
        "zh": ["全部指标", "经得起细微改动吗", "群体之间", "一百万次请求", "同音字替换"],
        "en": ["All figures", "Does it bear small changes", "Between groups", "One million requests"],
    }[lang]:
        assert word in page
    for shown in document["final"]["examples"]:
        assert shown["text"] in page
    assert len(document["final"]["examples"]) == 3


def other(document, data, outputs, checks=""):
    """The document as it would stand with these answers to that task."""
    told = evaluate(outputs, data, resamples=100)
    closer = look_closer(told, outputs, data, train=data, valid=told, latency=LATENCY, checks=read_checks(checks))
    made = copy.deepcopy(document)
    made.update(task=data.task, metric=told.metric)
    made["final"].update(evaluation=told.document(), test={**told.headline(), "n": told.n}, **closer.document())
    for candidate in made["candidates"]:
        candidate.update(valid=told.headline(), macro_f1=None)
    return made


def worlds():
    rng = random.Random(2)
    said = ["私密回答" + t[4 : 4 + rng.randint(0, 9)] for t in TEXTS]
    labels = [rng.choice("01") for _ in TEXTS]
    sets = [tuple(sorted(rng.sample(["甲", "乙", "丙"], rng.randint(0, 3)))) for _ in TEXTS]
    spans = [(Span(0, 2, "词"),) for _ in TEXTS]
    yield Examples("generation", TEXTS, targets=[t[:8] for t in TEXTS], ids=IDS), [Output(text=s) for s in said]
    yield Examples("chat", TEXTS, targets=[t[:8] for t in TEXTS], ids=IDS), [Output(text=s, replies=(Reply(s, 0.5),)) for s in said]
    yield Examples("matching", TEXTS, labels, texts_b=TEXTS[::-1], ids=IDS), [Output(label=rng.choice("01"), score=rng.uniform(0.5, 1)) for _ in TEXTS]
    yield Examples("matching", TEXTS, texts_b=TEXTS[::-1], grades=[rng.random() for _ in TEXTS], ids=IDS), [Output(score=rng.uniform(-1, 1)) for _ in TEXTS]
    yield Examples("embedding", TEXTS, texts_b=TEXTS[::-1], grades=[rng.random() for _ in TEXTS], ids=IDS), [Output(score=0.5) for _ in TEXTS]
    yield Examples("multilabel", TEXTS, label_sets=sets, ids=IDS), [Output(labels=rng.choice(sets), score=rng.random()) for _ in TEXTS]
    yield Examples("tagging", TEXTS, spans=spans, ids=IDS), [Output(spans=rng.choice([(), spans[0]]), score=rng.random()) for _ in TEXTS]


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_every_task_has_its_page(document, lang):
    for data, outputs in worlds():
        page = whole(report(other(document, data, outputs), lang=lang), lang)
        assert "私密" not in page, "no text unless it is asked for"
        shown = whole(report(other(document, data, outputs, "[report]\nexamples = 5\n"), lang=lang), lang)
        assert "私密文本" in shown


def test_old_documents_still_have_a_page(document):
    old = copy.deepcopy(document)
    for key in ("slices", "fairness", "robustness", "cost", "temperature", "examples", "error_slices"):
        del old["final"][key]
    del old["final"]["evaluation"]["picture"]
    assert "<h1>" in report(old, lang="zh")


def test_plots_of_odd_figures():
    row = Range("<b>很长很长的名字很长很长的名字很长很长的名字", 0, 0.0, 0.0, 0.0)
    assert "&lt;b&gt;" in ranges([row], title="", value_title="", count_title="")
    assert "<svg" in ranges([row, Range("x", 3, -0.5, -0.9, 0.1, bad=True, mark=0.2)], title="", value_title="", count_title="", line=0.3, from_zero=False)
    assert "<svg" in scatter([(0.5, 0.5), (0.5, 0.5)], title="", x_title="", y_title="")
    assert "&lt;i&gt;" in histogram({"<i>": [0, 0], "b": []}, title="", x_title="", y_title="")


def test_oracle_answers_are_what_the_world_says():
    data = examples(50)
    assert evaluate(Oracle(OracleHyper(error=0.0), task="classification").fit(data).predict(data.texts), data, resamples=20).score == 1.0
