"""Texts from one template must not end on one side as a whole."""

from wenfang.core.conversation import Message, written
from wenfang.core.examples import Examples
from wenfang.data.split import split_rows


def test_a_template_with_changing_numbers_is_still_divided():
    texts = [f"您的订单编号 {100000 + i * 37} 已经发货请注意查收谢谢您的惠顾" for i in range(600)]
    labels = ["a" if i % 2 else "b" for i in range(600)]
    texts += [texts[0]] * 3
    labels += [labels[0]] * 3
    shares = split_rows(Examples("classification", texts, labels), shares={"train": 8, "valid": 1, "test": 1}, seed=1)
    assert 40 <= len(shares["valid"]) <= 80 and 40 <= len(shares["test"]) <= 80
    assert sorted(r for rows in shares.values() for r in rows) == list(range(603))
    home = {r: n for n, rows in shares.items() for r in rows}
    assert len({home[r] for r in (0, 600, 601, 602)}) == 1  # equal texts still stay together


def test_small_near_clusters_stay_together():
    texts = [f"第{i}个完全不同的句子内容{i * 7919 % 1000}{chr(0x4E00 + i * 13)}{chr(0x5E00 + i * 7)}{chr(0x6E00 + i * 3)}" for i in range(200)]
    near = [t + "。" for t in texts[:50]]
    shares = split_rows(Examples("classification", texts + near, ["a", "b"] * 125), shares={"train": 6, "test": 4}, seed=3, near_threshold=0.8)
    home = {r: n for n, rows in shares.items() for r in rows}
    assert sum(home[i] == home[200 + i] for i in range(50)) >= 48


def test_short_conversations_are_not_alike_by_the_frame_around_them():
    asked = ["怎么退款", "如何开发票", "忘记密码怎么办", "快递到哪了", "怎么修改地址"]
    talks = [written([Message("user", asked[i % 5] + str(i // 5 + 10))]) for i in range(100)]
    shares = split_rows(Examples("chat", talks, targets=["好"] * 100), shares={"train": 8, "valid": 1, "test": 1}, seed=0)
    assert len(shares["test"]) == 10
    assert len({r % 5 for r in shares["test"]}) >= 3
