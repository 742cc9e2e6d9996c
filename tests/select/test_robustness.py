"""Robustness: edits move offsets exactly, perturbations do what they say, and the failure rate of a model with known weaknesses is found."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenfang.core.errors import Broken, Invalid
from wenfang.core.examples import Examples, Output, Span
from wenfang.core.words import keys
from wenfang.select.checks import Checks, read_checks
from wenfang.select.robustness.checking import brittle, check_robustness
from wenfang.select.robustness.edits import Edit, apply, moved
from wenfang.select.robustness.perturbations import PERTURBATIONS, Source, _pairs
from wenfang.select.robustness.suite import builtin, suite

ENTITIES = {"菜": ["红烧肉", "宫保鸡丁", "鱼"], "店": ["老张面馆"]}


def perturbed(name, text, spans=(), share=0.1, seed=0, entities=ENTITIES):
    edits = PERTURBATIONS[name](Source(text, spans, entities, share, random.Random(seed)))
    return apply(text, edits), edits


@pytest.mark.parametrize(
    "name, text, expected",
    [
        ("full_width", "用App 3次", "用Ａｐｐ　３次"),
        ("half_width", "ＡＰＰ，好！", "APP,好!"),
        ("traditional", "东西很贵", "東西很貴"),
        ("simplified", "東西很貴", "东西很贵"),
        ("upper", "用app退款", "用APP退款"),
        ("lower", "用APP退款", "用app退款"),
        ("drop_punctuation", "好，真的好！v3.5不行。", "好真的好v3.5不行"),
        ("drop_spaces", "退款 到账 了 new app", "退款到账了new app"),
        ("negate", "这家店不错", "这家店很差"),
        ("negate", "味道喜欢", "味道不喜欢"),
        ("negate", "the food was good", "the food was not good"),
        ("negate", "不喜欢", "不喜欢"),
    ],
)
def test_what_a_perturbation_writes(name, text, expected):
    assert perturbed(name, text)[0] == expected


def test_typos_touch_the_share_that_is_asked_for():
    text = "我在网上买的东西已经到了但是质量很差要退货退款" * 2
    for name in ("homophones", "look_alikes", "swap"):
        told, edits = perturbed(name, text, share=0.1)
        assert len(told) == len(text)
        assert told != text
        assert 1 <= len(edits) <= round(0.1 * len(text))
        assert perturbed(name, text)[0] == perturbed(name, text)[0], "equal seeds, equal typos"
    told, edits = perturbed("keyboard", "please refund me", share=0.1)
    assert len(edits) == 2
    assert len(told) == 16


@pytest.mark.parametrize("name", sorted(PERTURBATIONS))
@given(data=st.data())
def test_any_text_can_be_perturbed_and_spans_keep_their_words(name, data):
    """Whatever the text, edits are sorted and apart, and a span that survives holds what its own edits made of its words."""
    text = data.draw(st.text(st.characters(codec=None) | st.sampled_from("东西，。 !Aa3退款"), max_size=30))
    cut = sorted(data.draw(st.lists(st.integers(0, len(text)), min_size=2, max_size=6, unique=True))) if len(text) >= 5 else []
    spans = tuple(Span(a, b, "菜") for a, b in zip(cut[::2], cut[1::2], strict=False))
    told, edits = perturbed(name, text, spans, seed=data.draw(st.integers(0, 9)))
    assert all(e.start <= e.end <= len(text) for e in edits)
    assert all(a.end <= b.start for a, b in itertools.pairwise(edits))
    after = moved(spans, edits)
    if after is None:
        return
    kept = iter(after)
    for span in spans:
        inside = [
            Edit(e.start - span.start, e.end - span.start, e.text)
            for e in edits
            if span.start <= e.start and e.end <= span.end and not (e.start == e.end in {span.start, span.end})
        ]
        if (words := apply(text[span.start : span.end], inside)) != "":
            new = next(kept)
            assert told[new.start : new.end] == words
    assert next(kept, None) is None


def test_an_edit_over_a_border_has_no_place():
    assert moved([Span(1, 3, "x")], [Edit(2, 4, "")]) is None
    assert moved([Span(1, 3, "x")], [Edit(1, 3, "")]) == ()
    assert moved([Span(1, 3, "x")], [Edit(1, 1, "前"), Edit(3, 3, "后")]) == (Span(2, 4, "x"),)


def test_entities_are_swapped_with_their_kind():
    text, spans = "来份红烧肉吧", (Span(2, 5, "菜"),)
    told, edits = perturbed("swap_entity", text, spans)
    (after,) = moved(spans, edits)
    assert told[after.start : after.end] in {"宫保鸡丁", "鱼"}
    assert told.startswith("来份") and told.endswith("吧")
    assert perturbed("swap_entity", "去老张面馆", (Span(1, 5, "店"),))[1] == [], "there is no other"


def test_the_table_of_traditional_characters():
    for simple, traditional in _pairs().items():
        simple.encode("gb2312")
        traditional.encode("big5")
        assert simple != traditional


def test_every_test_that_comes_along_is_whole_and_named():
    assert {t.perturbation for t in builtin().values()} - {""} == set(PERTURBATIONS)
    known = keys()
    assert [n for n in builtin() if f"robustness.test-{n}" not in known] == []
    for kind in ("invariance", "direction", "minimal"):
        assert f"verdict.brittle-{kind}" in known
        assert f"robustness.kind-{kind}" in known


class Brittle:
    """Says 投诉 when it reads 差; blind to anything but half-width, simplified text."""

    def __init__(self):
        self.asked = 0

    def predict(self, texts):
        self.asked += len(texts)
        return [Output(label="投诉" if "差" in t and "ＡＰＰ" not in t else "表扬", score=0.9) for t in texts]


class Fragile(Brittle):
    """Ends with an error on what stands in capitals."""

    def predict(self, texts):
        if any("APP" in t for t in texts):
            raise Broken("serve.model-failed", model="fragile", kind="MemoryError")
        return super().predict(texts)


def test_a_model_that_stumbles_over_a_test_is_told_and_the_others_go_on():
    found = checked(Fragile(), world(), {n: builtin()[n] for n in ("upper-case", "no-punctuation", "known-texts")})
    assert (found["upper-case"].skipped, found["upper-case"].reason, found["upper-case"].n) == ("error", "serve.model-failed", 0)
    assert found["known-texts"].n == 200
    assert "robustness.skipped-error" in keys()


def world(n=300):
    texts = [f"App{i}很差" if i % 2 else f"App{i}不错" for i in range(n)]
    return Examples("classification", texts, ["投诉" if i % 2 else "表扬" for i in range(n)], ids=[f"ex_{i}" for i in range(n)])


def checked(model, data, tests, *, train=None, limit_s=60, **more):
    found = check_robustness(model, data, model.predict(data.texts), tests, train=train or data, limit_s=limit_s, **more)
    return {c.name: c for c in found}


def test_weaknesses_are_found_and_strengths_too():
    own = {"negation": {"labels": {"表扬": "投诉"}}, "shout": {"kind": "invariance", "perturbation": "upper", "tasks": ["classification"]}}
    found = checked(Brittle(), world(), suite(own))
    assert found["shout"].n == 200
    assert found["shout"].failures == 0
    assert not found["shout"].bad
    wide = found["full-width"]
    assert wide.failures == 0, "the letters became Ａｐｐ, not ＡＰＰ"
    assert found["half-width"].skipped == "nothing"
    assert found["other-entity"].skipped == "task"
    assert found["negation"].n == 150
    assert found["negation"].failures == 0, "不错 became 很差 and the answer followed"
    assert found["known-texts"].failures == 0
    assert found["swapped-characters"].failures == 0
    assert "negation" not in {c for c, v in checked(Brittle(), world(), builtin()).items() if not v.skipped}


def test_a_failure_names_the_example_and_its_answers():
    data = world()
    tests = suite({"look": {"kind": "invariance", "perturbation": "look_alikes", "share": 1.0}})

    class Literal(Brittle):
        def predict(self, texts):
            return [Output(label="投诉" if "很差" in t else "表扬", score=0.9) for t in texts]

    found = checked(Literal(), data, {"look": tests["look"]})["look"]
    assert found.bad
    assert found.failures > 90
    assert found.harmed == found.failures
    assert found.mended == 0
    assert found.low < found.rate < found.high
    row = found.rows[0]
    assert data.ids[row["row"]] == row["id"]
    assert (row["before"], row["after"]) == ("投诉", "表扬")
    assert "差" not in str(found.document())
    ((key, fields),) = brittle([found])
    assert key == "verdict.brittle-invariance"
    assert fields["test"] == "look"


class Tagger:
    """Finds 红烧肉 and nothing else."""

    def predict(self, texts):
        return [Output(spans=(Span(at, at + 3, "菜"),) if (at := t.find("红烧肉")) >= 0 else (), score=0.9) for t in texts]


def test_a_tagger_that_has_learned_words_by_heart_is_found():
    texts = [f"{i}号桌来份{'红烧肉' if i % 2 else '糖醋鱼'}。" for i in range(100)]
    spans = [(Span(t.index("份") + 1, t.index("份") + 4, "菜"),) for t in texts]
    data = Examples("tagging", texts, spans=spans)
    found = checked(Tagger(), data, {n: t for n, t in builtin().items() if n in {"other-entity", "no-punctuation", "full-width", "spaces-added"}})
    assert found["no-punctuation"].n == 100
    assert found["no-punctuation"].failures == 0
    assert found["full-width"].failures == 0
    entity = found["other-entity"]
    assert entity.n == 100
    assert entity.failures == 100, "with red-cooked pork gone it finds nothing, and put in where it was not it finds it; both change the answer"
    assert (entity.harmed, entity.mended) == (50, 50)


class Pairs:
    def match(self, texts, texts_b):
        return [Output(score=1.0 if a == b else 0.0) for a, b in zip(texts, texts_b, strict=True)]


def test_graded_pairs():
    data = Examples("matching", ["退款，谢谢"] * 40, texts_b=["退款，谢谢"] * 40, grades=[1.0] * 40)
    model = Pairs()
    found = check_robustness(model, data, model.match(data.texts, data.texts_b), {"no-punctuation": builtin()["no-punctuation"]}, train=data, limit_s=9)
    assert (found[0].n, found[0].failures) == (40, 40)


def test_time_is_kept_and_shared():
    now = iter(range(10_000))
    model = Brittle()
    found = checked(model, world(), builtin(), limit_s=6, clock=lambda: next(now))
    assert model.asked - 300 < 900
    assert {c.skipped for c in found.values()} >= {"time"}
    assert all(c.n % 50 == 0 or c.skipped == "" for c in found.values())


def test_cases_and_templates_of_the_user():
    text = """
    [robustness.simple]
    kind = "minimal"
    cases = [["很差", "投诉"], ["很差", "没有这个标签"]]
    templates = [["{who}{what}", "表扬"]]
    fill = { who = ["我", "你"], what = ["喜欢", "讨厌差的"] }
    """
    checks = read_checks(text)
    found = checked(Brittle(), world(), {"simple": checks.robustness["simple"]})["simple"]
    assert (found.n, found.failures) == (5, 2)
    assert found.rows[0]["row"] == -1


def test_checks_of_the_user():
    checks = read_checks('[slices.s]\npattern = "订单"\n[robustness.full-width]\ntolerated = 0.5\n[price]\ncore_hour = 0.3\ncurrency = "CNY"\n')
    assert checks.slices["s"].pattern == "订单"
    assert checks.robustness["full-width"].tolerated == 0.5
    assert checks.price.core_hour == 0.3
    assert len(checks.robustness) == len(builtin())
    assert checks.digest != read_checks("").digest != Checks().digest


@pytest.mark.parametrize(
    "text, code",
    [
        ("[slices", "checks.not-toml"),
        ("[slice.x]\npattern='a'", "checks.unknown-part"),
        ("slices = 3", "checks.unknown-part"),
        ("[robustness]\nx = 3", "checks.unknown-part"),
        ("[slices.x]\npattern='('", "checks.bad-slice"),
        ("[slices]\nx = 3", "checks.bad-slice"),
        ("[slices.x]\nlenght=3", "checks.bad-slice"),
        ("[price]\ncore_hour=-1", "checks.bad-price"),
        ("price = 3", "checks.unknown-part"),
        ("[robustness.x]\nkind='invariance'\nperturbation='homophone'", "robustness.bad-test"),
        ("[robustness.x]\nkind='direction'\nperturbation='negate'", "robustness.bad-test"),
        ("[robustness.x]\nkind='minimal'", "robustness.bad-test"),
    ],
)
def test_checks_that_make_no_sense_are_refused(text, code):
    with pytest.raises(Invalid) as e:
        read_checks(text)
    assert e.value.code == code
    for lang in ("zh", "en"):
        assert "{" not in e.value.detail(lang)
