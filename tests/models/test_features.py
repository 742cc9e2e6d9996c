"""Grams against the same counted slowly."""

import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenfang.core.text import fold
from wenfang.models.bags import Bags, Recipe, bag_texts, count_vocabulary, sum_rows
from wenfang.models.features import GramIndex, code_points, ngrams, text_blocks
from wenfang.models.words import word_grams

TEXT = st.text(st.characters(codec=None) | st.sampled_from("好坏ＡaA　 \0\ud800𠀀"), max_size=12)


def slow_grams(text, shortest, longest):
    marked = ["start", *fold(text), "end"]
    grams = [tuple(marked[i : i + n]) for n in range(shortest, longest + 1) for i in range(len(marked) - n + 1)]
    return Counter(g for g in grams if g not in {("start",), ("end",), ("start", "end")})


@given(st.lists(TEXT, max_size=6))
def test_code_points_are_those_of_the_folded_text(texts):
    codes, starts = code_points(texts)
    assert [list(codes[a:b]) for a, b in pairwise(starts)] == [[ord(c) for c in fold(t)] for t in texts]


@given(st.lists(TEXT, max_size=6), st.integers(1, 3), st.integers(0, 3))
def test_grams_are_those_counted_slowly(texts, shortest, more):
    grams = ngrams(texts, shortest=shortest, longest=shortest + more)
    names: dict[int, tuple] = {}
    for i, text in enumerate(texts):
        slow = slow_grams(text, shortest, shortest + more)
        counted = Counter(grams.keys[grams.text_of == i].tolist())
        assert sorted(counted.values()) == sorted(slow.values())
        alone = ngrams([text], shortest=shortest, longest=shortest + more)
        assert Counter(alone.keys.tolist()) == counted
        for key in counted:
            names.setdefault(key, key)
    assert len(names) == len(set().union(*(slow_grams(t, shortest, shortest + more) for t in texts)) if texts else [])


def slow_words(text, longest):
    words = re.findall(r"[a-z0-9éд]+", fold(text))
    marked = ["<", *words, ">"] if words else []
    return Counter(words) + Counter(tuple(marked[i : i + n]) for n in range(2, longest + 1) for i in range(len(marked) - n + 1))


@given(st.lists(st.text("ab1éд 好。Ａ\U00020000", max_size=14), max_size=6), st.integers(1, 3))
def test_word_grams_are_those_counted_slowly(texts, longest):
    grams = word_grams(texts, longest)
    seen: dict[int, object] = {}
    for i, text in enumerate(texts):
        counted, slow = Counter(grams.keys[grams.text_of == i].tolist()), slow_words(text, longest)
        assert sorted(counted.values()) == sorted(slow.values())
        assert Counter(word_grams([text], longest).keys.tolist()) == counted
        seen.update(dict.fromkeys(counted))
    assert len(seen) == len({key for text in texts for key in slow_words(text, longest)})


def test_a_recipe_with_words_adds_them_where_there_are_blanks():
    assert len(Recipe(1, 1, 2).grams(["天地玄黄"]).keys) == len(Recipe(1, 1).grams(["天地玄黄"]).keys)
    assert len(Recipe(1, 1, 2).grams(["ab cd", ""]).keys) == len(Recipe(1, 1).grams(["ab cd", ""]).keys) + 2 + 3


@given(st.sets(st.integers(0, 2**64 - 1), max_size=50), st.lists(st.integers(0, 2**64 - 1), max_size=20))
def test_the_index_finds_what_is_there_and_nothing_else(known, others):
    keys = np.array(sorted(known), np.uint64)
    index = GramIndex(keys)
    asked = np.array([*known, *others], np.uint64)
    for key, row in zip(asked.tolist(), index.rows(asked).tolist(), strict=True):
        assert (keys[row] == key) if key in known else row == -1


def test_the_index_holds_crowded_buckets():
    keys = np.arange(1000, dtype=np.uint64)
    assert np.array_equal(GramIndex(keys).rows(keys), np.arange(1000))


def test_vocabulary_counts_texts_not_places_and_keeps_the_frequent():
    texts = ["好好好", "好坏", "坏"]
    index, counts = count_vocabulary(texts, Recipe(1, 1), min_count=1, size_max=10)
    assert sorted(counts.tolist()) == [2, 2]
    assert len(count_vocabulary(texts, Recipe(1, 2), min_count=2, size_max=10)[0]) == 4  # 好, 坏, ^好, 坏$
    assert len(count_vocabulary(texts, Recipe(1, 2), min_count=1, size_max=3)[0]) == 3
    bags = bag_texts(texts, index, Recipe(1, 1))
    assert np.diff(bags.starts).tolist() == [1, 2, 1]
    assert bags.values.max() == pytest.approx(1 + np.log(3))


def test_counting_in_blocks_changes_nothing(monkeypatch):
    texts = [f"第{i % 7}条消息{i % 3}" for i in range(200)]
    whole = count_vocabulary(texts, Recipe(1, 3), min_count=2, size_max=1000)
    monkeypatch.setattr("wenfang.models.bags._BLOCK_CHARS", 50)
    pieces = count_vocabulary(texts, Recipe(1, 3), min_count=2, size_max=1000)
    assert np.array_equal(whole[0].keys, pieces[0].keys)
    assert np.array_equal(whole[1], pieces[1])


@pytest.mark.parametrize("limit", [1 << 22, 64])
def test_sums_equal_a_matrix_product_whatever_the_pieces(monkeypatch, limit):
    monkeypatch.setattr("wenfang.models.bags._CELLS_MAX", limit)
    rng = np.random.default_rng(0)
    sizes = np.array([0, 3, 100, 0, 1, 7, 0])
    starts = np.concatenate([[0], np.cumsum(sizes)])
    bags = Bags(starts, rng.integers(0, 20, starts[-1]).astype(np.int32), rng.random(starts[-1]).astype(np.float32))
    table = rng.random((20, 5)).astype(np.float32)
    got = sum_rows(table, bags)
    for i, (a, b) in enumerate(pairwise(starts)):
        assert np.allclose(got[i], (table[bags.rows[a:b]] * bags.values[a:b, None]).sum(axis=0), atol=1e-4)
        assert np.array_equal(got[i], sum_rows(table, Bags(np.array([0, b - a]), bags.rows[a:b], bags.values[a:b]))[0])


def test_blocks_hold_whole_texts():
    texts = ["ab", "", "c" * 10, "d"]
    assert list(text_blocks(texts, 4)) == [(0, 2), (2, 3), (3, 4)]
    assert list(text_blocks([], 4)) == []
