"""The extractive writer and its parts: pieces against brute force, an n-gram model that sums to one, titles of a world with a rule."""

import itertools
import math
import random
import time

import numpy as np
import pytest

from contracts.family_worlds import ODD
from wenfang.core.conversation import Generation
from wenfang.core.errors import Broken, Invalid, Unsupported
from wenfang.core.examples import Examples
from wenfang.core.ports import Cancelled, Quiet
from wenfang.models import Curve, DataShape, families
from wenfang.models.generation.judging import overlap
from wenfang.models.generation.ngrams import NGrams
from wenfang.models.generation.pieces import Prices, choices_of
from wenfang.models.generation.units import features_of, units_of

Generator = families.get("generator")
TOPICS = ["水稻产量", "城市交通", "图像识别", "教师培训", "糖尿病护理", "钢梁疲劳", "古诗翻译", "土壤重金属"]
NOISE = ["近年来受到关注", "结果令人满意", "具有一定意义", "方法简单可行", "数据来自调查", "效果较好", "成本较低"]


def world(n, seed):
    """The title is what the abstract says is being studied, with the word study behind it."""
    rng = random.Random(seed)
    texts, titles = [], []
    for _ in range(n):
        one, two = rng.sample(TOPICS, 2)
        texts.append(f"{rng.choice(NOISE)},本文探讨了{one}与{two}的关系,{rng.choice(NOISE)}。{rng.choice(NOISE)},{one}{rng.choice(NOISE)}。")
        titles.append(f"{one}与{two}的关系研究")
    return Examples("generation", texts, targets=titles)


@pytest.fixture(scope="module")
def model():
    return Generator(Generator.Hyper(kind="extractive", epochs=3), task="generation").fit(world(80, 1), world(40, 2))


def mean_overlap(model, examples):
    return np.mean([overlap(o.text, t) for o, t in zip(model.predict(examples.texts), examples.targets, strict=True)])


def test_it_learns_the_rule(model):
    assert mean_overlap(model, world(60, 3)) > 0.95
    assert model.found_["valid_rouge_l"] > 0.95
    answer = model.predict(world(1, 4).texts)[0]
    assert answer.finish == "stop"
    assert answer.tokens_out == len(answer.text)


def test_callers_may_ask(model):
    texts, pieces = world(4, 5).texts, []
    asked = [Generation(max_tokens=6), Generation(forbidden=("研究",)), Generation(stop=("与",)), Generation(min_tokens=8)]
    short, without, stopped, whole = model.generate(texts, asked, emit=lambda row, piece: pieces.append((row, piece)))
    assert short.tokens_out <= 6
    assert "研究" not in without.text
    assert "与" not in stopped.text
    assert whole.tokens_out >= 8
    assert pieces == [(i, a.text) for i, a in enumerate((short, without, stopped, whole))]
    with pytest.raises(Invalid, match=r"generation\.no-schema"):
        model.generate(texts[:1], [Generation(json_schema={"type": "string"})])
    with pytest.raises(Unsupported, match=r"generation\.no-perplexity"):
        model.perplexity(world(2, 6))


def test_any_text_is_accepted_and_order_does_not_matter(model):
    texts = [*ODD.values(), *world(5, 7).texts, "。。。", "A short English abstract about deep learning, nothing else."]
    answers = model.predict(texts)
    assert answers == [model.predict([t])[0] for t in texts]
    assert answers[0].text == ""


def test_save_and_load_change_nothing(model, tmp_path):
    model.save(tmp_path)
    again = Generator.load(tmp_path, task="generation", hyper=model.hyper, labels=[])
    texts = [*world(30, 8).texts, *ODD.values()]
    assert again.predict(texts) == model.predict(texts)
    (tmp_path / "composer.json").write_text("[]")
    with pytest.raises(Broken, match=r"model\.damaged"):
        Generator.load(tmp_path, task="generation", hyper=model.hyper, labels=[])


def test_equal_seed_equal_model_and_little_is_enough(model):
    again = Generator(model.hyper, task="generation").fit(world(80, 1), world(40, 2))
    texts = world(20, 9).texts
    assert again.predict(texts) == model.predict(texts)
    few = Generator(model.hyper, task="generation").fit(Examples("generation", ["天地玄黄,宇宙", "", "a b"], targets=["天地", "", "b"]))
    assert len(few.predict(["天地玄黄", ""])) == 2


def test_it_stops_when_told(model):
    class Stop(Quiet):
        def advance(self, n=1, **figures):
            raise Cancelled

    fresh = Generator(model.hyper, task="generation")
    with pytest.raises(Cancelled):
        fresh.fit(world(80, 1), None, Curve(progress=Stop()))
    late = fresh.fit(world(80, 1), world(40, 2), Curve(deadline=time.monotonic() - 1))
    assert len(late.predict(["天好"])) == 1
    with pytest.raises(Invalid, match=r"generation\.nothing-to-extract"):
        Generator(model.hyper, task="chat").fit(Examples("chat", ["天"], targets=["地"]))


def test_it_comes_first_where_targets_are_short():
    first = next(iter(Generator.candidates(DataShape("generation", 1000, 0, 200.0, 300, target_mean=20.0))))
    assert first.kind == "extractive"
    assert all(h.kind != "extractive" for h in Generator.candidates(DataShape("chat", 1000, 0, 20.0, 300, target_mean=20.0)))


def test_pieces_are_the_best_there_are():
    rng = np.random.default_rng(0)
    units = units_of("甲乙丙丁戊")
    for _ in range(10):
        odds = rng.normal(size=(5, 3))
        price, cut, trust = 0.4, 0.2, 0.3
        worth = 1 / (1 + np.exp(-odds[:, 0])) - price
        begin, end = (np.minimum(0.0, trust * np.clip(odds[:, h], -6, 2) - cut) for h in (1, 2))

        def value(pieces):
            return sum(worth[a:b].sum() + begin[a] + end[b - 1] for a, b in pieces)

        best = max(value(p) for n in range(6) for p in ways(5, n))
        found = choices_of(units, odds, Prices.grid([price], [cut], [trust]))
        assert math.isclose(value(found[0].pieces) if found else 0.0, best, abs_tol=1e-9)


def ways(length, count):
    """Every way to put ``count`` pieces into ``length`` units."""
    for borders in itertools.combinations_with_replacement(range(length + 1), 2 * count):
        pieces = [borders[i : i + 2] for i in range(0, len(borders), 2)]
        if all(a < b for a, b in pieces):
            yield pieces


def test_what_was_said_is_not_said_again():
    units = units_of("天地玄黄,宇宙洪荒,天地玄黄")
    odds = np.full((len(units), 3), 3.0)
    for choice in choices_of(units, odds, Prices.grid([0.3], [0.1], [0.1])):
        said = "".join(units.words[i] for i in choice.units())
        assert said.count("天地") == 1


def test_chances_of_the_n_gram_model_sum_to_one():
    rng = random.Random(0)
    texts = ["".join(rng.choice("abcabd") for _ in range(rng.randint(1, 9))) for _ in range(50)]
    grams = NGrams.learn(texts, order=3, vocabulary=6)
    for context in ("", "a", "ab", "zz", "abca"):
        total = sum(math.exp(grams.log_chances([*context, symbol], whole=False)[-1]) for symbol in "abcdz")
        stop = math.exp(grams.log_chances(context)[-1])
        assert math.isclose(total + stop, 1.0, rel_tol=1e-9)
    assert grams.log_chances("abc").sum() > grams.log_chances("ddd").sum()


def test_units_and_features():
    units = units_of("用GPT-4写 Deep Learning 诗。\ud800")
    assert units.words[:6] == ["用", "gpt-4", "写", "deep", "learning", "诗"]
    assert all(units.text[a:b].lower() == w for (a, b), w in zip(units.spans, units.words, strict=True))
    rows = features_of(units, NoTexts())
    assert rows.shape[0] == len(units)
    assert rows.min() >= 0


class NoTexts:
    n = 0

    def __call__(self, pairs):
        return np.ones(len(pairs), np.int64)
