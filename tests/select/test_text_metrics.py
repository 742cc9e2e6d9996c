"""Metrics of written and ranked answers, against definitions and, where they are installed, the usual libraries."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenfang.core.text import common_subsequence
from wenfang.select.overlap import bleu_counts, chrf_counts, distinct, rouge_counts, tokens
from wenfang.select.ranking import ndcg_counts, recall_counts, reciprocal_rank_counts
from wenfang.stats.scores import score

WORDS = ["文房", "四宝", "笔", "墨", "纸", "砚", "model", "GPT4", "，", "a", "the", "cat", "。"]


def corpus(seed, n=20, least=0):
    rng = random.Random(seed)
    wanted = [[rng.choice(WORDS) for _ in range(rng.randint(least, 14))] for _ in range(n)]
    said = [[w if rng.random() < 0.7 else rng.choice(WORDS) for w in row if rng.random() < 0.9] for row in wanted]
    return [" ".join(w) for w in wanted], [" ".join(s) for s in said]


def test_tokens_of_two_scripts():
    assert tokens("  退款3天, 请用App！") == ["退", "款", "3", "天", ",", "请", "用", "App", "！"]
    assert tokens("かな 한글 naïve") == ["か", "な", "한", "글", "naïve"]
    assert tokens("") == []


@given(st.text("abcd", max_size=70), st.text("abcd", max_size=70))
def test_common_subsequence_is_the_one_of_the_textbook(a, b):
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            table[i, j] = table[i - 1, j - 1] + 1 if x == y else max(table[i - 1, j], table[i, j - 1])
    assert common_subsequence(a, b) == table[-1, -1]


def test_rouge_of_a_known_pair():
    found = {k: score(c) for k, c in rouge_counts(["今天天气好"], ["今天好天气"]).items()}
    assert found["rouge_1"] == 1.0
    assert found["rouge_2"] == pytest.approx(2 * 2 / 8)  # 今天 and 天气
    assert found["rouge_l"] == pytest.approx(0.8)  # 今天天气 or 今天天好 ... four of five
    assert score(rouge_counts([""], [""])["rouge_l"]) == 1.0
    assert score(rouge_counts(["有"], [""])["rouge_l"]) == 0.0


def test_chrf_and_bleu_at_their_ends():
    same = ["文房四宝是笔墨纸砚", "the cat sat on the mat"]
    assert score(chrf_counts(same, same)) == pytest.approx(1)
    assert score(bleu_counts(same, same)) == pytest.approx(1)
    assert score(chrf_counts(same, ["", ""])) == 0
    assert score(bleu_counts(same, ["", ""])) == 0
    assert score(bleu_counts(["甲乙丙丁"], ["戊己庚辛"])) == 0


def test_rouge_agrees_with_rouge_score():
    scorer = pytest.importorskip("rouge_score.rouge_scorer", reason="rouge_score is not installed")

    class Own:
        def tokenize(self, text):
            return tokens(text.lower())

    wanted, said = corpus(0, n=800, least=1)
    peer = scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Own())
    found = [peer.score(w, s) for w, s in zip(wanted, said, strict=True)]
    own = rouge_counts(wanted, said)
    for key, name in (("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL")):
        for i, f in enumerate(found):
            if len(tokens(wanted[i])) > 1:  # the peer calls two texts without any bigram wrong, we call them right
                assert own[key].rows[i, 0] / 1e6 == pytest.approx(f[name].fmeasure, abs=1e-6)


def test_bleu_and_chrf_agree_with_sacrebleu():
    sacrebleu = pytest.importorskip("sacrebleu", reason="sacrebleu is not installed")
    for seed in range(40):
        wanted, said = corpus(seed, n=1 + seed % 20, least=1)
        assert score(chrf_counts(wanted, said)) == pytest.approx(sacrebleu.corpus_chrf(said, [wanted]).score / 100, abs=1e-9)
        spaced = [" ".join(tokens(x)) for x in said], [" ".join(tokens(x)) for x in wanted]
        assert score(bleu_counts(wanted, said)) == pytest.approx(sacrebleu.corpus_bleu(spaced[0], [spaced[1]], tokenize="none", force=True).score / 100, abs=1e-9)


def test_distinct_n():
    assert distinct(["笔墨纸砚"], 1) == 1.0
    assert distinct(["好好", "好好"], 1) == 0.25
    assert distinct(["", "好"], 2) == 0.0


def test_ranked_answers_by_hand():
    ranked, relevant = [["a", "b", "c"], ["x"], []], [{"b"}, {"y"}, {"z"}]
    assert score(reciprocal_rank_counts(ranked, relevant)) == pytest.approx(0.5 / 3, abs=1e-6)
    assert score(recall_counts(ranked, relevant, k=1)) == 0.0
    assert score(recall_counts(ranked, relevant, k=2)) == pytest.approx(1 / 3, abs=1e-6)
    assert score(recall_counts([["a", "b"]], [{"a", "c"}], k=2)) == 0.5
    assert score(ndcg_counts([["a", "b"]], [{"a": 1.0, "b": 3.0}], k=2)) == pytest.approx((1 + 3 / np.log2(3)) / (3 + 1 / np.log2(3)), abs=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_ndcg_agrees_with_sklearn(seed):
    ndcg_score = pytest.importorskip("sklearn.metrics").ndcg_score
    rng = np.random.default_rng(seed)
    gains = rng.integers(0, 4, (6, 9)).astype(float)
    scores = rng.random((6, 9))
    ranked = [list(np.argsort(-row)) for row in scores]
    own = ndcg_counts(ranked, [dict(enumerate(row)) for row in gains], k=5)
    assert score(own) == pytest.approx(ndcg_score(gains, scores, k=5), abs=2e-6)
