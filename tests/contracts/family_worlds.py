"""A tiny world with a known answer for each task, and how one asks, compares and judges there. A new task adds a line to each table."""

import random

import numpy as np

from wenfang.core.conversation import Message, written
from wenfang.core.examples import Examples, Span

LABELLED = {"classification", "multilabel", "tagging", "matching"}
WRITTEN = {"generation", "chat"}
"""Their answers are texts."""
NOISE = "天地玄黄宇宙洪荒日月盈昃"
ODD = {
    "empty": "", "blank": " ", "tabs": "\t\n\r", "emoji": "好😀👨‍👩‍👧好", "full width": "ＡＢＣ１２３", "rare": "𠀀𪚥好", "nul": "\0好\0", "surrogate": "好\ud800", "other surrogate": "\udfff",
    "long": "天地玄黄好宇宙洪荒" * 1112, "unknown": "zzz qqq", "highest": "\U0010ffff", "combining": "e\u0301好",
}  # fmt: skip


def marked(n, seed):
    """Texts of noise with one mark each: what they say, and where."""
    rng = random.Random(seed)
    for i in range(n):
        text = "".join(rng.choice(NOISE) for _ in range(rng.randint(2, 14)))
        at = rng.randint(1, len(text))
        yield text[:at] + "坏好"[i % 2] + text[at:], at, ("good" if i % 2 else "bad")


def classification(n, seed):
    rows = list(marked(n, seed))
    return Examples("classification", [r[0] for r in rows], [r[2] for r in rows])


def multilabel(n, seed):
    """Each mark that stands in a text is one of its labels; some texts have none."""
    rng = random.Random(seed)
    texts, sets = [], []
    for i in range(n):
        marks = [m for m, bit in (("坏", 1), ("好", 2)) if i & bit]
        letters = [rng.choice(NOISE) for _ in range(rng.randint(2, 8))] + marks
        rng.shuffle(letters)
        texts.append("".join(letters))
        sets.append(tuple(sorted({"坏": "bad", "好": "good"}[m] for m in marks)))
    return Examples("multilabel", texts, label_sets=sets)


def tagging(n, seed):
    rows = list(marked(n, seed))
    return Examples("tagging", [r[0] for r in rows], spans=[(Span(at - 1, at + 1, label),) for _, at, label in rows])


def pairs(n, seed):
    """The second text is the first in other order (good), or noise of its own (bad)."""
    rng = random.Random(seed)
    texts, others, labels = [], [], []
    for i in range(n):
        one, two = (rng.sample(NOISE, 5) for _ in range(2))
        texts.append("".join(one))
        others.append("".join(rng.sample(one, 5) if i % 2 else two) + rng.choice("吗呢吧"))
        labels.append("good" if i % 2 else "bad")
    return texts, others, labels


def matching(n, seed):
    texts, others, labels = pairs(n, seed)
    return Examples("matching", texts, labels, texts_b=others)


def embedding(n, seed):
    return Examples("embedding", pairs(n, seed)[0])


REPLIES = {"退款": "钱三天内退回", "物流": "包裹在路上", "发票": "发票已经开出", "你好": "您好请讲"}


def chat(n, seed):
    """Every question has its topic's reply."""
    rng = random.Random(seed)
    topics = list(REPLIES)
    noise = lambda: "".join(rng.choice(NOISE) for _ in range(rng.randint(0, 3)))  # noqa: E731
    asked = [(noise() + topics[i % 4] + noise(), REPLIES[topics[i % 4]]) for i in range(n)]
    texts = [q if i % 3 else written([Message("user", "在吗"), Message("assistant", "在的"), Message("user", q)]) for i, (q, _) in enumerate(asked)]
    return Examples("chat", texts, targets=[a for _, a in asked])


PROVERBS = {"good": "好事成双乐无边", "bad": "坏事一件接一件"}


def generation(n, seed):
    """The proverb of the mark."""
    rows = list(marked(n, seed))
    return Examples("generation", [r[0] for r in rows], targets=[PROVERBS[r[2]] for r in rows])


WORLDS = {"classification": classification, "multilabel": multilabel, "tagging": tagging, "matching": matching, "embedding": embedding, "chat": chat, "generation": generation}


def world(task, n=120, seed=1):
    return WORLDS[task](n, seed)


def odd(task):
    """Questions nobody foresaw; pairs meet each other."""
    texts = list(ODD.values())
    return questions(task, texts)


def questions(task, texts):
    return Examples(task, texts, texts_b=texts[1:] + texts[:1] if task == "matching" else [])


def labelled(task, texts, labels):
    """A training set of given texts; what is not a label is made from it."""
    if task == "tagging":
        return Examples(task, texts, spans=[(Span(0, 1, label),) if text else () for text, label in zip(texts, labels, strict=True)])
    if task == "multilabel":
        return Examples(task, texts, label_sets=[(label,) if text else () for text, label in zip(texts, labels, strict=True)])
    if task in WRITTEN:
        return Examples(task, texts, targets=labels)
    return Examples(task, texts, labels if task in LABELLED else [], texts_b=texts[1:] + texts[:1] if task == "matching" else [])


def asked(model, examples, **more):
    return model.match(examples.texts, examples.texts_b, **more) if model.task == "matching" else model.predict(examples.texts, **more)


def close(a, b, tolerance):
    """Whether two answers are the same up to rounding."""
    if (a.label, a.labels) != (b.label, b.labels) and tolerance == 0.0:
        return False
    if (a.vector is None) != (b.vector is None) or (a.vector and np.abs(vector(a) - vector(b)).max() > tolerance):
        return False
    if tolerance == 0.0 and (a.text, a.replies) != (b.text, b.replies):
        return False
    return a.spans == b.spans and abs((a.score or 0.0) - (b.score or 0.0)) <= tolerance and (a.scores or {}).keys() == (b.scores or {}).keys()


def same(left, right, tolerance):
    return len(left) == len(right) and all(close(a, b, tolerance) for a, b in zip(left, right, strict=True))


def vector(answer):
    return np.frombuffer(answer.vector, "<f4")


def check(task, text, a, labels):
    """Whether an answer is one of this task."""
    if task == "embedding":
        assert a.label is a.score is a.spans is None
        assert abs(float(np.linalg.norm(vector(a))) - 1.0) < 1e-4
        return
    if task in WRITTEN:
        assert a.finish in {"stop", "length", "none"}
        assert (a.text is None) == (a.finish == "none")
        assert [r.score for r in a.replies or ()] == sorted((r.score for r in a.replies or ()), reverse=True)
        return
    assert 0.0 <= a.score <= 1.0
    if task == "tagging":
        assert a.label is None
        ends = [0]
        for s in a.spans:
            assert ends[-1] <= s.start < s.end <= len(text)
            assert s.label in labels
            ends.append(s.end)
        return
    if task == "multilabel":
        assert a.label is None
        assert set(a.labels) <= set(labels)
        return
    assert a.label in labels
    assert a.spans is None
    assert a.scores is None


def share_right(task, model, fresh):
    """Of fresh examples; for vectors, how often the other half of a good pair is nearer than that of a bad one."""
    answers = asked(model, fresh)
    if task == "tagging":
        return np.mean([a.spans == s for a, s in zip(answers, fresh.spans, strict=True)])
    if task == "multilabel":
        return np.mean([set(a.labels) == set(y) for a, y in zip(answers, fresh.label_sets, strict=True)])
    if task in WRITTEN:
        return np.mean([a.text == t for a, t in zip(answers, fresh.targets, strict=True)])
    if task == "embedding":
        texts, others, labels = pairs(100, 12)
        scores = np.array([o.score for o in model.match(texts, others)])
        good = np.array([label == "good" for label in labels])
        return (scores[good][:, None] > scores[~good][None]).mean()
    return np.mean([a.label == y for a, y in zip(answers, fresh.labels, strict=True)])
