"""The pairwise family: what it sees of two texts, what it learns from pairs, grades and weights, and what it refuses."""

import random

import numpy as np
import pytest

from wenfang.core.errors import Broken, Invalid
from wenfang.core.examples import Examples
from wenfang.models import families
from wenfang.models.pairs import DIRECTED, FIGURES, LENGTHS, Rarity, compare, crossings, figures, sides

Pairwise = families.get("pairwise")


def rarities(texts):
    return [Rarity.count(texts, n) for n in LENGTHS]


def test_compare_counts_each_gram_on_both_sides():
    c = compare(["aab", ""], ["ab", "c"], 1)
    cells = sorted((int(p), left, right) for p, left, right in zip(c.pair, c.left, c.right, strict=True))
    assert cells == [(0, 1.0, 1.0), (0, 2.0, 1.0), (1, 0.0, 1.0)]
    assert c.only_right().sum() == 1
    assert not c.only_left().any()


def test_sides_know_left_from_right_only_when_asked():
    there, back = compare(["甲乙"], ["甲丙"], 1), compare(["甲丙"], ["甲乙"], 1)
    assert set(sides(there, directed=False)[0]) == set(sides(back, directed=False)[0])
    assert len(set(sides(there, directed=True)[0]) & set(sides(back, directed=True)[0])) == 1, "only the shared one"


def test_crossings_join_every_gram_of_one_side_with_every_gram_of_the_other():
    texts, others = ["甲乙丙", "天", "同"], ["甲丁", "地玄", "同"]
    c = compare(texts, others, 1)
    keys, pair = crossings(c, np.ones(len(c.keys)), directed=False, most=12)
    assert np.bincount(pair, minlength=3).tolist() == [2, 2, 0]
    turned = compare(others, texts, 1)
    assert set(keys) == set(crossings(turned, np.ones(len(turned.keys)), directed=False, most=12)[0])
    assert not set(keys) & set(crossings(c, np.ones(len(c.keys)), directed=True, most=12)[0]) - set(keys)
    few, _ = crossings(c, np.ones(len(c.keys)), directed=False, most=1)
    assert len(few) == 2, "one gram of each side of each pair that differs"


def test_figures_are_symmetric_but_for_the_directed_ones_and_know_the_extremes():
    texts, others = ["我要退款", "花呗不能用12", "abc", ""], ["我要退款", "花呗能用13", "xyz", ""]
    seen = rarities([*texts, *others])
    there, back = figures(texts, others, seen), figures(others, texts, seen)
    assert there.shape == (4, len(FIGURES))
    assert np.allclose(there[:, :-DIRECTED], back[:, :-DIRECTED])
    row = dict(zip(FIGURES, there[0], strict=True))
    assert row["cosine_1"] == pytest.approx(1.0)
    assert row["overlap_2"] == row["subsequence"] == row["same_start"] == pytest.approx(1.0)
    assert dict(zip(FIGURES, there[1], strict=True))["negation_differs"] == 1.0
    assert dict(zip(FIGURES, there[1], strict=True))["numbers_differ"] == 1.0
    assert dict(zip(FIGURES, there[2], strict=True))["cosine_1"] == 0.0
    assert np.isfinite(there).all()


def test_it_learns_that_two_words_mean_the_same():
    """No character is shared by the two words, so only crossings can tell."""
    rng = random.Random(1)
    words = [("爸", "父"), ("妈", "母"), ("车", "轿"), ("钱", "款")]

    def made(n):
        texts, others, labels = [], [], []
        for _ in range(n):
            (a, b), (_, other) = rng.sample(words, 2)
            alike = rng.random() < 0.5
            frame = rng.choice(["我的{}呢", "你看{}了", "{}在哪"])
            texts.append(frame.format(a))
            others.append(frame.format(b if alike else other))
            labels.append("same" if alike else "other")
        return Examples("matching", texts, labels, texts_b=others)

    fresh = made(200)
    right = {}
    for most in (0, 12):
        model = Pairwise(Pairwise.Hyper(crossings=most), task="matching").fit(made(400))
        right[most] = np.mean([o.label == y for o, y in zip(model.match(fresh.texts, fresh.texts_b), fresh.labels, strict=True)])
    assert right[12] > 0.95
    assert right[0] < 0.75


def test_direction_is_learned_when_asked_for():
    rng = random.Random(2)
    texts, others, labels = [], [], []
    for _ in range(400):
        small, large = sorted(rng.sample(range(10), 2))
        up = rng.random() < 0.5
        texts.append(f"第{small if up else large}名")
        others.append(f"第{large if up else small}名")
        labels.append("up" if up else "down")
    train = Examples("matching", texts[:300], labels[:300], texts_b=others[:300])
    right = {
        d: np.mean(
            [
                o.label == y
                for o, y in zip(Pairwise(Pairwise.Hyper(directed=d, min_count=1), task="matching").fit(train).match(texts[300:], others[300:]), labels[300:], strict=True)
            ]
        )
        for d in (False, True)
    }
    assert right[True] > 0.9
    assert right[False] < 0.7


def graded(n, seed):
    rng = random.Random(seed)
    texts, others, grades = [], [], []
    for _ in range(n):
        one = rng.sample("天地玄黄宇宙洪荒日月盈昃", 6)
        kept = rng.randint(0, 6)
        texts.append("".join(one))
        others.append("".join(one[:kept] + rng.sample("甲乙丙丁戊己庚辛壬癸", 6 - kept)))
        grades.append(kept / 6)
    return Examples("matching", texts, texts_b=others, grades=grades)


def test_grades_come_back_between_0_and_1_in_their_order(tmp_path):
    model = Pairwise(task="matching").fit(graded(400, 1), graded(60, 2))
    fresh = graded(100, 3)
    answers = model.match(fresh.texts, fresh.texts_b)
    assert model.labels_ == []
    assert all(a.label is None and 0 <= a.score <= 1 for a in answers)
    said = np.array([a.score for a in answers])
    assert np.corrcoef(said, fresh.grades)[0, 1] > 0.95
    assert np.abs(said - fresh.grades).mean() < 0.1
    model.save(tmp_path)
    assert Pairwise.load(tmp_path, task="matching", hyper=model.hyper, labels=[]).match(fresh.texts, fresh.texts_b) == answers


def test_weights_count():
    texts, others = ["同一句话", "同一句话"] * 20, ["同一句话"] * 40
    labels = ["yes", "no"] * 20
    model = Pairwise(task="matching").fit(Examples("matching", texts, labels, texts_b=others, weights=[9.0, 1.0] * 20))
    answer = model.match(["同一句话"], ["同一句话"])[0]
    assert answer.label == "yes"
    assert answer.score == pytest.approx(0.9, abs=0.02)


def test_what_valid_chose_is_fixed_for_the_refit():
    model = Pairwise(task="matching").fit(graded(300, 1), graded(60, 2))
    again = model.refit_hyper()
    assert again.c is not None
    assert again.sharpness is not None


def test_it_refuses_single_texts_and_damage(tmp_path):
    model = Pairwise(task="matching")
    with pytest.raises(Invalid, match=r"model\.not-fitted"):
        model.match(["a"], ["b"])
    model.fit(graded(30, 1))
    with pytest.raises(Invalid, match=r"model\.pairs-wanted"):
        model.predict(["a"])
    model.save(tmp_path)
    with pytest.raises(Broken, match=r"model\.damaged"):
        Pairwise.load(tmp_path, task="matching", hyper=model.hyper, labels=["a", "b", "c"])
    (tmp_path / "pairwise.safetensors").unlink()
    with pytest.raises(Broken, match=r"model\.damaged"):
        Pairwise.load(tmp_path, task="matching", hyper=model.hyper, labels=[])
