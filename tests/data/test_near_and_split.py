"""Near-duplicates against brute force; shares that leak nothing."""

import random
from collections import Counter
from itertools import combinations

import pytest

from wenfang.core.errors import Invalid
from wenfang.core.examples import Examples, Span
from wenfang.core.text import fold
from wenfang.data.corpus import write_corpus
from wenfang.data.near import clusters, near_leaks, near_pairs
from wenfang.data.split import single_classes, split_rows

ALPHABET = "我在北京买了蓝牙耳机快递三天没动ＡｂＣ１２🙂"


def shingles(text):
    text = fold(text)
    return {text[i : i + 2] for i in range(len(text) - 1)} or {text}


def jaccard(a, b):
    return len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b))


@pytest.fixture(scope="module")
def texts():
    draw = random.Random(3)
    base = ["".join(draw.choices(ALPHABET, k=draw.randint(0, 30))) for _ in range(200)]
    edited = [t[:i] + draw.choice(ALPHABET) + t[i + draw.randint(0, 1) :] for t in base for i in [draw.randint(0, len(t))]]
    return [*base, *edited, "", "好", "好", "Ｈello", "hello", "ab", "AB"]


@pytest.mark.parametrize("threshold", [0.6, 0.8, 0.95])
def test_pairs_equal_brute_force(texts, threshold):
    first = {t: i for i, t in reversed(list(enumerate(texts)))}
    truth = {(i, j) for i, j in combinations(sorted(first.values()), 2) if jaccard(texts[i], texts[j]) >= threshold}
    found = {tuple(sorted(p)) for p in near_pairs(texts, threshold=threshold).tolist()}
    assert found <= truth
    assert len(found) >= 0.98 * len(truth)
    assert len(truth) > 5


def test_folded_texts_are_equal():
    assert near_pairs(["ＡＢＣ　１２３", "abc 123", "别的文本"]).tolist() == [[0, 1]]


def test_few_texts():
    assert near_pairs([]).tolist() == near_pairs(["a"]).tolist() == near_pairs(["a", "a"]).tolist() == []
    assert clusters(["a", "b", "a"]).tolist() == [0, 1, 0]


def test_clusters_join_groups_and_chains():
    chain = ["蓝牙耳机用了三天就坏了要求退款谢谢", "蓝牙耳机用了三天就坏了要求退款谢谢啊", "蓝牙耳机用了三天就坏了要求退款谢谢啊哈"]
    assert clusters(chain).tolist() == [0, 0, 0]
    assert clusters(["一", "二", "三", "四"], groups=["x", "", "x", ""]).tolist() == [0, 1, 0, 3]
    assert clusters(chain, threshold=2).tolist() == [0, 1, 2]


def test_near_leaks_leave_exact_ones_out():
    train = ["蓝牙耳机用了三天就坏了要求退款", "快递到哪里了"]
    test = ["蓝牙耳机用了三天就坏了要求退款", "蓝牙耳机用了三天就坏了要求退款！", "怎么开发票"]
    assert near_leaks([train, test]) == {(0, 1): [], (1, 0): [1]}
    assert near_leaks([train, ["转人工"], test[1:]]) == {(0, 1): [], (0, 2): [0], (1, 0): [], (1, 2): [], (2, 0): [0], (2, 1): []}


def test_a_large_bucket_of_copies_does_not_stall():
    many = [f"您的验证码是{i:04}，请勿泄露给他人，五分钟内有效" for i in range(5000)]
    assert len(set(clusters(many).tolist())) < 50


SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}


def tickets(n, labels=5, seed=0):
    draw = random.Random(seed)
    texts = ["".join(chr(draw.randint(0x4E00, 0x9FA5)) for _ in range(12)) for _ in range(n)]
    return Examples("classification", texts, [str(draw.randrange(labels)) for _ in range(n)])


def test_shares_are_stratified_disjoint_and_repeatable():
    examples = tickets(5000)
    rows = split_rows(examples, shares=SHARES, seed=1)
    assert sorted(r for at in rows.values() for r in at) == list(range(5000))
    assert rows == split_rows(examples, shares=SHARES, seed=1) != split_rows(examples, shares=SHARES, seed=2)
    totals = Counter(examples.labels)
    for name, share in SHARES.items():
        counts = Counter(examples.labels[r] for r in rows[name])
        assert all(abs(counts[label] - share * n) <= 3 for label, n in totals.items())


def test_near_duplicates_and_groups_stay_on_one_side():
    examples = tickets(1000)
    texts = examples.texts + [t + "！" for t in examples.texts] + examples.texts[:100]
    groups = [f"g{i // 3}" if i < 300 else "" for i in range(len(texts))]
    both = Examples("classification", texts, examples.labels * 2 + examples.labels[:100], groups=groups)
    rows = split_rows(both, shares=SHARES, seed=0)
    side = {r: name for name, at in rows.items() for r in at}
    assert all(side[i] == side[1000 + i] for i in range(1000))
    assert all(side[i] == side[2000 + i] for i in range(100))
    assert all(side[i] == side[i - 1] for i in range(300) if i % 3)
    assert min(len(v) for v in rows.values()) > 100


def test_classes_of_one_example_go_to_train():
    examples = tickets(200)
    lonely = Examples("classification", [*examples.texts, "独一无二的文本", "另一条独特内容"], [*examples.labels, "x", "y"])
    rows = split_rows(lonely, shares=SHARES, seed=0)
    assert {200, 201} <= set(rows["train"])
    assert single_classes(lonely) == ["x", "y"]


def test_ten_thousand_classes_of_two():
    draw = random.Random(0)
    texts = ["".join(chr(draw.randint(0x4E00, 0x9FA5)) for _ in range(8)) for _ in range(20_000)]
    rows = split_rows(Examples("classification", texts, [str(i % 10_000) for i in range(20_000)]), shares=SHARES, seed=0)
    assert 1500 < len(rows["valid"]) < 2500
    assert 1500 < len(rows["test"]) < 2500
    seen = {i % 10_000 for i in rows["train"]}
    assert len(seen) == 10_000


def test_one_class_and_one_example():
    rows = split_rows(tickets(100, labels=1), shares=SHARES, seed=0)
    assert {n: len(r) for n, r in rows.items()} == {"train": 80, "valid": 10, "test": 10}
    assert split_rows(tickets(1), shares=SHARES, seed=0) == {"train": [0], "valid": [], "test": []}


def test_tagging_is_stratified_by_the_rarest_label():
    texts = tickets(1000).texts
    spans = [(Span(0, 2, "a"), Span(3, 4, "b")) if i % 10 == 0 else (Span(0, 2, "a"),) if i % 2 else () for i in range(1000)]
    rows = split_rows(Examples("tagging", texts, [], spans), shares=SHARES, seed=0)
    assert sum(r % 10 == 0 for r in rows["test"]) == 10


@pytest.mark.parametrize("shares", [{}, {"train": 0}, {"train": -1, "test": 2}, {"train": float("nan")}])
def test_bad_shares(shares):
    with pytest.raises(Invalid) as e:
        split_rows(tickets(10), shares=shares, seed=0)
    assert e.value.code == "dataset.bad-shares"


def test_the_demo_corpus_splits(tmp_path):
    assert set(write_corpus(tmp_path, rows=200)) == {"tickets", "entities"}
