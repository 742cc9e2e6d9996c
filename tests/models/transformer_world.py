"""A world that a very small transformer learns in seconds."""

import random

from wenfang.core.examples import Examples, Span

SMALL = {
    "hidden": 16,
    "heads": 2,
    "ff": 32,
    "layers": 1,
    "ngram_buckets": 64,
    "min_count": 1,
    "learning_rate": 0.02,
    "dropout": 0.0,
    "threads": 1,
    "width": "fp32",
    "precision": "fp32",
}


def world(task, n=240, seed=1):
    """Two marks hidden in noise: the class is the mark, the span is the mark with the character before it."""
    rng = random.Random(seed)
    noise = "天地玄黄宇宙洪荒日月盈昃"
    texts, labels, spans = [], [], []
    for i in range(n):
        text = "".join(rng.choice(noise) for _ in range(rng.randint(2, 14)))
        at = rng.randint(1, len(text))
        labels.append("good" if i % 2 else "bad")
        texts.append(text[:at] + "好坏"[i % 2] + text[at:])
        spans.append((Span(at - 1, at + 1, labels[-1]),))
    return Examples(task, texts, labels if task == "classification" else [], spans=spans if task == "tagging" else [])
