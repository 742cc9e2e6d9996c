"""A small world with known answers: texts that carry their label, families that err at a chosen rate, replicas in this process."""

import hashlib
import json
import time
from pathlib import Path
from typing import ClassVar

from wenfang.core.examples import Examples, Output, Span
from wenfang.models.base import Hyper, Model
from wenfang.models.space import Choice, Float

LABELS = ["咨询", "投诉", "退款", "物流", "表扬"]


def examples(n, *, start=0, task="classification", labels=LABELS):
    names = [labels[(i * 7 + i // 5) % len(labels)] for i in range(start, start + n)]
    texts = [f"第{i}条 {name}" for i, name in enumerate(names, start)]
    if task == "classification":
        return Examples(task, texts, labels=names, ids=[f"ex_{i}" for i in range(start, start + n)])
    return Examples(task, texts, spans=[(Span(len(t) - len(name), len(t), name),) for t, name in zip(texts, names, strict=True)], ids=[f"ex_{i}" for i in range(start, start + n)])


def luck(text, salt):
    """A number in 0..1 that belongs to the text."""
    return int.from_bytes(hashlib.sha256(f"{salt}{text}".encode("utf-8", "surrogatepass")).digest()[:6]) / 2**48


class OracleHyper(Hyper):
    error: float = 0.1
    salt: str = "a"
    delay_ms: float = 0.0
    fit_s: float = 0.0
    size_bytes: int = 1000
    crash: str = ""
    steps: int = 3
    valid_gain: float = 0.0


class Oracle(Model):
    """Reads the label from the text and errs at the rate ``error``, always on the same texts."""

    tasks = frozenset({"classification", "tagging"})
    cost_rank = 1
    Hyper = OracleHyper
    tried: ClassVar[list[OracleHyper]] = [OracleHyper()]
    fits: ClassVar[list[str]] = []

    @classmethod
    def candidates(cls, shape):
        return list(cls.tried)

    def fit(self, train, valid=None, curve=None):
        h = self.hyper
        type(self).fits.append(f"{h.salt}:{len(train)}:{'refit' if valid is None else 'fit'}")
        if h.crash == "memory":
            raise MemoryError
        if h.crash == "secret":
            raise ValueError(f"could not read {train.texts[0]}")
        if h.crash == "refit" and valid is None:
            raise RuntimeError("no")
        self.labels_ = train.label_names()
        until = time.monotonic() + h.fit_s
        for step in range(1, h.steps + 1):
            if curve is not None:
                curve.point(step, loss=1 / step, valid_score=1 - h.error / 2 - 0.2 / step)
        while time.monotonic() < until and not (curve and curve.late()):
            time.sleep(0.002)
        return self

    def predict(self, texts, *, top_k=1):
        h = self.hyper
        if h.delay_ms:
            time.sleep(h.delay_ms * len(texts) / 1000)
        return [self._one(t) for t in texts]

    def _one(self, text):
        h = self.hyper
        gold = text.rsplit(" ", 1)[-1]
        chance = luck(text, h.salt)
        label = gold if chance >= h.error else self.labels_[int(chance * 1e6) % len(self.labels_)]
        score = float("nan") if h.crash == "nan" else 0.5 + 0.5 * luck(text, "s")
        if self.task == "classification":
            return Output(label=label, score=score)
        return Output(spans=(Span(len(text) - len(gold), len(text), label),), score=score)

    def save(self, folder):
        (folder / "weights.bin").write_bytes(b"\0" * self.hyper.size_bytes)

    @classmethod
    def load(cls, folder, *, task, hyper, labels):
        model = cls(hyper, task=task)
        model.labels_ = labels
        return model


class Constant(Oracle):
    """The floor of this world: one label for everything."""

    cost_rank = 0
    tried: ClassVar[list[OracleHyper]] = [OracleHyper(salt="floor", size_bytes=1)]
    fits: ClassVar[list[str]] = []

    def _one(self, text):
        return Output(label=self.labels_[0], score=0.2) if self.task == "classification" else Output(spans=(), score=0.2)


class TunedHyper(OracleHyper):
    x: float = 0.0
    kind: str = "plain"


class Tuned(Oracle):
    """Errs the less the nearer ``x`` is to 0.7, and less with ``kind`` fancy."""

    Hyper = TunedHyper
    tried: ClassVar[list[OracleHyper]] = [TunedHyper(), TunedHyper(x=0.2)]

    @classmethod
    def space(cls, shape):
        return {"x": Float(0.0, 1.0), "kind": Choice(("plain", "fancy"))}

    def _one(self, text):
        h = self.hyper
        error = 0.02 + 0.8 * (h.x - 0.7) ** 2 + (0.1 if h.kind == "plain" else 0.0)
        gold = text.rsplit(" ", 1)[-1]
        wrong = luck(text, "tuned") < error
        label = next(name for name in self.labels_ if name != gold) if wrong else gold
        return Output(label=label, score=0.5) if self.task == "classification" else Output(spans=(Span(len(text) - len(gold), len(text), label),), score=0.5)


def family(name, *tried, rank=1, tasks=("classification", "tagging"), base=Oracle):
    """A family of oracles with these candidates."""
    return type(name, (base,), {"name": name, "tried": list(tried) or base.tried, "cost_rank": rank, "tasks": frozenset(tasks), "fits": []})


class InProcess:
    """A replica host that loads the written bundle into this process."""

    def __init__(self, *families):
        self.families = {f.__name__: f for f in families}
        self.running = 0
        self.started = []

    def write(self, folder, model, card):
        folder.mkdir(parents=True)
        model.save(folder)
        (folder / "card.json").write_text(
            json.dumps({"family": type(model).__name__, "task": model.task, "hyper": model.hyper.model_dump(), "labels": model.labels_, "card": card}, default=str)
        )

    def start(self, bundle):
        self.started.append(Path(bundle).name)
        replica = InProcessReplica(self, bundle)
        self.running += 1
        return replica


class InProcessReplica:
    def __init__(self, host, bundle):
        card = json.loads((bundle / "card.json").read_text())
        cls = host.families[card["family"]]
        self.host, self.bundle = host, bundle
        self.model = cls.load(bundle, task=card["task"], hyper=cls.Hyper.model_validate(card["hyper"]), labels=card["labels"])

    def predict(self, texts):
        return self.model.predict(texts)

    def match(self, texts, texts_b):
        return self.model.match(texts, texts_b)

    def memory_bytes(self):
        return 1_000_000 + (self.bundle / "weights.bin").stat().st_size

    def close(self):
        self.host.running -= 1


class Watcher:
    """Progress that remembers."""

    def __init__(self):
        self.stages, self.notes, self.figures = [], [], []

    def stage(self, name, total=None, unit=""):
        self.stages.append(name)

    def advance(self, n=1, **figures):
        self.figures.append(figures)

    def note(self, key, **fields):
        self.notes.append((key, fields))
