"""The retriever: which replies it knows, whom it listens to, when it says nothing, and what it refuses."""

import random

import numpy as np
import pytest

from wenfang.core.conversation import Generation, Message, written
from wenfang.core.errors import Broken, Invalid
from wenfang.core.examples import Examples
from wenfang.models import families
from wenfang.models.nearest import top_rows

Retriever = families.get("retriever")
FAQ = {
    "怎么退款": "请在订单页点退款", "快递到哪里了": "点订单可看物流", "怎么开发票": "发票在我的账单里", "忘记密码怎么办": "点登录页的找回密码", "如何修改地址": "发货前可在订单页改地址",
    "优惠券怎么用": "结算时会自动抵扣", "能开增值税专票吗": "可以，请联系客服", "多久能发货": "付款后两天内发货",
}  # fmt: skip


def faq(n, seed):
    rng = random.Random(seed)
    rows = [(rng.choice(["", "请问", "你好，", "麻烦问下"]) + q + rng.choice(["", "？", "呢", "，谢谢"]), a) for q, a in rng.choices(list(FAQ.items()), k=n)]
    return Examples("chat", [q for q, _ in rows], targets=[a for _, a in rows])


@pytest.fixture(scope="module")
def model():
    return Retriever(task="chat").fit(faq(400, 1), faq(100, 2))


def test_it_answers_from_the_library(model):
    fresh = faq(100, 3)
    answers = model.predict(fresh.texts)
    assert np.mean([a.text == t for a, t in zip(answers, fresh.targets, strict=True)]) > 0.95
    assert {a.finish for a in answers} <= {"stop", "none"}
    assert all(a.replies is None for a in answers)


def test_several_replies_come_best_first_with_probabilities(model):
    answer = model.predict(["怎么退款"], top_k=3)[0]
    assert answer.replies[0].text == answer.text == FAQ["怎么退款"]
    scores = [r.score for r in answer.replies]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 3
    assert sum(scores) <= 1 + 1e-6
    assert answer.score == scores[0]


def test_what_has_nothing_to_do_with_the_library_gets_no_reply(model):
    asked = ["天地玄黄宇宙洪荒", "zzz qqq xxx", ""]
    assert model.floor_ > 0
    for a in model.predict(asked, top_k=2):
        assert (a.text, a.finish) == (None, "none")
        assert a.score < model.floor_
        assert len(a.replies) == 2, "what was considered is still told"


def test_the_last_message_counts_most_and_the_ones_before_decide():
    rows = [([a, "多少钱"], f"{a}五元") if i % 2 else ([a, "在哪里买"], f"{a}在门口") for i, a in enumerate(["苹果", "苹果", "香蕉", "香蕉", "西瓜", "西瓜"] * 20)]

    def text(turns):
        return written([Message("user", turns[0]), Message("assistant", "嗯"), Message("user", turns[1])])

    model = Retriever(task="chat").fit(Examples("chat", [text(t) for t, _ in rows], targets=[a for _, a in rows]))
    for fruit in ("苹果", "香蕉", "西瓜"):
        assert model.predict([text([fruit, "多少钱"])])[0].text == f"{fruit}五元"
        assert model.predict([text([fruit, "在哪里买"])])[0].text == f"{fruit}在门口"


def test_near_duplicates_are_one_reply_and_the_frequent_one_speaks():
    texts = ["在吗", "在不在", "你在吗", "有人吗", "几点了", "现在几点"]
    targets = ["在的。", "在的", "在的", "在的 ！", "八点", "八点"]
    model = Retriever(Retriever.Hyper(floor=0.0), task="chat").fit(Examples("chat", texts, targets=targets))
    assert sorted(model.replies_) == ["八点", "在的"]
    assert Retriever(Retriever.Hyper(floor=0.0, library_max=2), task="chat").fit(Examples("chat", [*texts, "嗯"], targets=[*targets, "哦"])).replies_ == ["在的", "八点"]


def test_weights_count():
    texts, targets = ["你好"] * 4, ["甲", "甲", "甲", "乙"]
    light = Retriever(Retriever.Hyper(floor=0.0), task="chat").fit(Examples("chat", texts, targets=targets))
    heavy = Retriever(Retriever.Hyper(floor=0.0), task="chat").fit(Examples("chat", texts, targets=targets, weights=[1.0, 1.0, 1.0, 50.0]))
    assert (light.replies_[0], heavy.replies_[0]) == ("甲", "乙")
    assert heavy.predict(["你好"])[0].text == "乙"


def test_a_demanded_precision_is_kept_on_like_conversations():
    """Half of the questions have random replies: they must not be answered."""
    rng = random.Random(5)

    def made(n, seed):
        sure = faq(n, seed)
        vague = [(rng.choice("天地玄黄宇宙洪荒") * 2 + "如何", str(rng.randrange(50))) for _ in range(n)]
        return sure + Examples("chat", [q for q, _ in vague], targets=[a for _, a in vague])

    model = Retriever(Retriever.Hyper(precision=0.9, caution=0.0), task="chat").fit(made(200, 1), made(200, 2))
    fresh = made(200, 3)
    shown = [(a.text, t) for a, t in zip(model.predict(fresh.texts), fresh.targets, strict=True) if a.finish == "stop"]
    assert len(shown) > 150
    assert np.mean([said == t for said, t in shown]) > 0.8


def test_a_given_pair_has_its_probability(model):
    right, wrong, unknown = model.match(["怎么退款"] * 3, [FAQ["怎么退款"], FAQ["怎么开发票"], "没有这句"])
    assert right.score > 0.5 > wrong.score
    assert unknown.score == 0.0


def test_generation_gives_the_same_whole_reply(model):
    told = []
    answers = model.generate(["怎么退款", "zzz"], [Generation(), Generation(max_tokens=1)], emit=lambda i, piece: told.append((i, piece)))
    assert answers == model.predict(["怎么退款", "zzz"])
    assert told == [(0, FAQ["怎么退款"])]


def test_json_of_a_schema_is_no_reply_of_a_library(model):
    with pytest.raises(Invalid, match="library-no-schema"):
        model.generate(["怎么退款"], [Generation(json_schema={"type": "object"})])


def test_saving_keeps_every_answer_and_damage_is_seen(model, tmp_path):
    model.save(tmp_path)
    load = lambda: Retriever.load(tmp_path, task="chat", hyper=model.hyper, labels=[])  # noqa: E731
    assert load().predict(faq(30, 4).texts, top_k=5) == model.predict(faq(30, 4).texts, top_k=5)
    (tmp_path / "replies.json").write_text('["one"]')
    with pytest.raises(Broken, match=r"model\.damaged"):
        load()
    (tmp_path / "replies.json").write_text("{")
    with pytest.raises(Broken, match=r"model\.damaged"):
        load()


def test_the_floor_is_fixed_for_the_refit(model):
    again = Retriever(model.refit_hyper(), task="chat").fit(faq(400, 1) + faq(100, 2))
    assert again.floor_ == model.floor_


def test_an_unfitted_one_says_so():
    with pytest.raises(Invalid, match=r"model\.not-fitted"):
        Retriever(task="chat").predict(["a"])


def test_top_rows_are_exact_and_stable():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((500, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    at, cosines = top_rows(rows[7], rows, 5)
    assert at[0] == 7
    assert at.tolist() == np.argsort(-(rows @ rows[7]), kind="stable")[:5].tolist()
    assert cosines[0] == pytest.approx(1.0)
    same = np.ones((6, 2), np.float32)
    assert top_rows(same[0], same, 3)[0].tolist() == [0, 1, 2]
