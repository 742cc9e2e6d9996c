"""Places of texts, what templates read there, and what is learned beside: lexicon, topics, clusters."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wenfang.core.examples import Span
from wenfang.models import topics
from wenfang.models.clusters import Clusters
from wenfang.models.contexts import CHARACTERS, WORDS, Contexts
from wenfang.models.lexicon import Lexicon, Terms, listed
from wenfang.models.places import Places, fitting_unit
from wenfang.models.topics import Topics

TEXT = st.text(st.characters(codec=None) | st.sampled_from("好坏ＡaA\u3000 \0\ud800𠀀 -1"), max_size=12)


def words_of(text):
    places = Places([text], "word")
    return [text[a:b] for a, b in zip(*(x.tolist() for x in places.bounds()), strict=True)]


def test_words_stand_alone_and_blanks_are_no_places():
    assert words_of("Play the 2nd song, 好听 吗? don't") == ["Play", "the", "2nd", "song", ",", "好", "听", "吗", "?", "don", "'", "t"]
    assert words_of("") == words_of("  \t") == []


@settings(deadline=None)
@given(st.lists(TEXT, max_size=6), st.sampled_from(["character", "word"]))
def test_every_inked_character_belongs_to_one_place(texts, unit):
    places = Places(texts, unit)
    left, right = places.bounds()
    for i, text in enumerate(texts):
        a, b = places.starts[i], places.starts[i + 1]
        assert (left[a:b] < right[a:b]).all()
        assert (right[a : b - 1] <= left[a + 1 : b]).all() if b > a else True
        gaps = set(range(len(text))) - {c for x, y in zip(left[a:b], right[a:b], strict=True) for c in range(x, y)}
        assert all(text[c].isspace() or text[c] < " " or "\x7f" <= text[c] <= "\xa0" for c in gaps)


@settings(deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=6), st.sampled_from(["character", "word"]))
def test_a_text_reads_the_same_alone_and_in_a_batch(texts, unit):
    recipe = WORDS if unit == "word" else CHARACTERS
    contexts = Contexts(recipe).count(Places(["好坏Aa 好", "坏坏 a"], unit), {}, min_count=1, size_max=10**6)
    together = contexts.windows(Places(texts, unit), {})
    assert together.rows.shape == (together.starts[-1], len(recipe))
    assert together.rows.min(initial=0) >= 0
    assert together.rows.max(initial=0) < len(contexts)
    for i, text in enumerate(texts):
        assert np.array_equal(contexts.windows(Places([text], unit), {}).rows, together.rows[together.starts[i] : together.starts[i + 1]])


def test_contexts_see_what_their_names_say():
    places = Places(["天地玄黄宇"], "character")
    contexts = Contexts(CHARACTERS).count(places, {}, min_count=1, size_max=10**6)
    rows = contexts.windows(places, {}).rows
    one = {t[0][1]: i for i, t in enumerate(CHARACTERS) if len(t) == 1 and t[0][0] == "form" and abs(t[0][1]) <= 2}
    base = {offset: rows[2, i] - contexts.first[i] for offset, i in one.items()}
    assert len(set(base.values())) == 5  # five different characters around the middle
    for offset in (-1, 1):
        assert rows[2 + offset, one[0]] - contexts.first[one[0]] == base[offset]


def test_too_many_contexts_are_cut_to_the_frequent():
    places = Places(["".join(chr(0x4E00 + (i * j) % 500) for j in range(50)) for i in range(100)], "character")
    assert len(Contexts(CHARACTERS).count(places, {}, min_count=1, size_max=10**6)) > 2000
    assert len(Contexts(CHARACTERS).count(places, {}, min_count=1, size_max=2000)) <= 2000


def test_spelling_reads_beginnings_endings_and_shapes():
    def reads(name, text):
        return Places([text], "word").channel(name).tolist()

    assert reads("prefix2", "playing player")[0] == reads("prefix2", "playing player")[1]
    assert reads("suffix3", "playing singing")[0] == reads("suffix3", "playing singing")[1] != reads("suffix3", "player")[0]
    assert reads("shape", "Word Other ABC1")[0] == reads("shape", "Word Other ABC1")[1] != reads("shape", "Word Other ABC1")[2]
    assert reads("form", "Word word")[0] == reads("form", "Word word")[1] != reads("form", "drow")[0]


def test_repetition_is_seen_within_one_text_only():
    assert Places(["天地人天地", "天地"], "character").channel("twice").tolist() == [1, 2, 0, 1, 2, 0, 0]


def test_the_unit_follows_the_texts_and_their_spans():
    texts = ["play some music by Adele", "book a table in Paris"]
    assert fitting_unit(texts, [[19, 24], [16, 21]]) == "word"
    assert fitting_unit(texts, [[20, 24], [17, 21]]) == "character"
    assert fitting_unit(["在北京看 iPhone 发布会"], [[1, 3]]) == fitting_unit([], []) == "character"


def test_spans_are_counted_in_whole_places():
    places = Places(["go to  New York now"], "word")
    assert places.covering([[Span(7, 15, "city")]]) == [[Span(2, 4, "city")]]
    assert places.covering([[Span(8, 9, "city"), Span(9, 13, "city")]]) == [[Span(2, 3, "city")]]  # the second meets the first
    assert Places(["天地人"], "character").covering([[Span(1, 3, "x")]]) == [[Span(1, 3, "x")]]


def harvested(texts, spans):
    places = Places(texts, "character")
    rows = [(places.starts[i] + a, b - a, k) for i, own in enumerate(spans) for a, b, k in own]
    return places, *Lexicon.harvest(places, Terms(*np.array(rows, np.int64).reshape(-1, 3).T))


def test_a_text_reads_only_what_others_taught():
    places, lexicon, learned = harvested(["去北京", "北京好", "去上海", "上海滩"], [[(1, 3, 0)], [(0, 2, 0)], [(1, 3, 1)], []])
    assert len(lexicon) == 2
    assert learned.tolist() == [0, 1, 3, 1, 3, 0, 0, 0, 0, 5, 7, 0]  # 上海 taught itself nothing, but the last text
    assert lexicon.channel(places).tolist() == [0, 1, 3, 1, 3, 0, 0, 5, 7, 5, 7, 0]


def test_the_longest_term_speaks():
    _, lexicon, _ = harvested(["北京大学", "北京", "大"], [[(0, 4, 1)], [(0, 2, 0)], [(0, 1, 0)]])
    assert lexicon.channel(Places(["在北京大学", "北京大", "学"], "character")).tolist() == [0, 5, 6, 6, 7, 1, 3, 4, 0]


def test_given_words_become_terms():
    lexicon = Lexicon.harvest(*listed([["北京", ""], ["上海滩"]], "character"))[0]
    assert lexicon.channel(Places(["去北京", "上海滩"], "character")).tolist() == [0, 1, 3, 5, 6, 7]
    assert len(Lexicon.harvest(*listed([], "word"))[0]) == 0


def test_topics_are_learned_from_the_other_texts():
    places = Places(["球赛"] * 20 + ["股票"] * 20 + ["电影"], "character")
    present = np.zeros((41, 3), bool)
    present[:20, 0] = present[20:40, 1] = present[40, 2] = True
    whole, learned = Topics.learn(places, present)
    assert set(learned["topic"][:40].tolist()) == {0}
    assert set(learned["topic"][40:80].tolist()) == {1}
    assert learned["topic"][80] != 2  # the only text that says so may not hear itself
    assert whole.channels(Places(["看球赛", "", "电影"], "character"))["topic"].tolist() == [0, 0, 0, 2, 2]


@settings(deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=6), st.lists(TEXT, max_size=6), st.sampled_from(["character", "word"]))
def test_topics_are_read_alike_without_compiled_loops(taught, texts, unit):
    present = np.random.default_rng(0).random((len(taught), 3)) < 0.5
    learned, places = Topics.learn(Places(taught, unit), present)[0], Places([*texts, *taught, ""], unit)
    fast = learned.channels(places)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topics, "available", lambda: False)
        slow = learned.channels(places)
    assert all(np.array_equal(fast[name], slow[name]) for name in ("topic", "topics"))


def test_readings_without_weights_are_left_out():
    places, none = Places(["天地玄黄"] * 3, "character"), {}
    before = Contexts(CHARACTERS).count(places, none, min_count=1, size_max=1000)
    weights = np.zeros((len(before), 2), np.float16)
    spoken = before.windows(places, none).rows[1, [0, 3, 7]]
    weights[spoken] = [[1, 2], [3, 4], [5, 6]]
    after, kept = before.heard(weights)
    assert len(after) == len(kept) < len(before)
    new = Places(["地玄黄天地"], "character")
    sums = [w[c.windows(new, none).rows].sum(axis=1) for c, w in ((before, weights), (after, kept))]
    assert np.array_equal(*sums)
    assert sums[0].any()


def test_forms_in_like_company_stand_in_one_cluster():
    rng = np.random.default_rng(0)
    texts = [f"{rng.choice(list('甲乙丙丁'))}吃{rng.choice(list('瓜果梨桃'))}了" for _ in range(400)]
    clusters = Clusters.learn(Places(texts, "character"), 0)
    vectors = {c: clusters.channels(Places([c], "character"))["cluster"].tolist() for c in "甲乙丙丁瓜果梨桃?"}
    assert vectors["?"] == [0]
    assert {v[0] for c, v in vectors.items() if c in "甲乙丙丁"}.isdisjoint({v[0] for c, v in vectors.items() if c in "瓜果梨桃"})
    again = Clusters.learn(Places(texts, "character"), 0)
    assert np.array_equal(again.groups, clusters.groups)


@pytest.mark.parametrize("texts", [[""], ["天"], ["", "a"]])
def test_hardly_any_text_is_enough(texts):
    places = Places(texts, "character")
    assert len(Clusters.learn(places, 0).channels(places)["fine"]) == len(places)
    assert len(Topics.learn(places, np.ones((len(texts), 1), bool))[1]["topic"]) == len(places)
