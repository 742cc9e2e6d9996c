"""Robustness tests run on a model: how often its answers change when they should not, or stay when they should change.

Each test takes at most ``SAMPLE`` texts and its part of the time; original answers are the ones of the evaluation, so that only the
rewritten texts are asked. Rows name examples, never their words. Knows nothing of budgets or reports.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import numpy as np

from wenfang.core.errors import WenfangError
from wenfang.core.examples import Answering, Examples, Output, Span, ask
from wenfang.core.ports import Progress, Quiet
from wenfang.stats.bootstrap import interval
from wenfang.stats.scores import Counts

from .edits import apply, moved
from .perturbations import PERTURBATIONS, Source
from .suite import RobustnessTest, told

__all__ = ["SAMPLE", "Checked", "brittle", "check_robustness"]

SAMPLE = 200
"""Texts of a test: enough for an interval of seven points either way."""
BATCH = 50
ROWS_KEPT = 50
ENTITIES_KEPT = 200
SAME_GRADE = 0.1
"""Grades of pairs that differ by less are called the same."""


@dataclass(slots=True)
class Checked:
    """What came of one test."""

    name: str
    kind: str
    tolerated: float
    n: int = 0
    failures: int = 0
    rate: float = 0.0
    low: float = 0.0
    high: float = 1.0
    harmed: int = 0
    """Right before and wrong after; for minimal tests: wrong."""
    mended: int = 0
    skipped: str = ""
    """Why it did not run: ``task``, ``declared`` (nobody has said what should change), ``nothing`` (no text offers itself), ``time``, ``error`` (the model failed on it)."""
    reason: str = ""
    """Code of that error."""
    rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """Failures, at most 50: row, id, answer before and after."""

    @property
    def bad(self) -> bool:
        """Certainly above what is tolerated."""
        return self.n > 0 and self.low > self.tolerated

    def document(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "bad": self.bad}


@dataclass(frozen=True, slots=True)
class _Case:
    """One question of a test: where it comes from, what is asked, and which answer is right; ``before`` is None where only the right one counts."""

    row: int
    question: Examples
    before: Any
    wanted: Any
    gold: Any


def check_robustness(
    model: Answering,
    examples: Examples,
    answers: Sequence[Output],
    tests: Mapping[str, RobustnessTest],
    *,
    train: Examples,
    limit_s: float,
    seed: int = 0,
    sample: int = SAMPLE,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> list[Checked]:
    """Run every test that suits the task.

    Args:
        model: asked, usually a replica.
        examples: n labelled examples to rewrite.
        answers: n answers of the model to them.
        tests: by name, of ``suite``.
        train: what the model learned from: entities to swap with, texts it must know.
        limit_s: for all tests together; each gets an equal part of what is left.
        seed: of the sample and of what is rewritten.
        sample: texts of a test at most.
        progress: told each test.
        clock: seconds.

    Cost: ``sample`` predictions a test.
    """
    watched, until = progress or Quiet(), clock() + limit_s
    watched.stage("robustness", len(tests), "tests")
    entities = _entities(train)
    found: list[Checked] = []
    for place, (name, test) in enumerate(tests.items()):
        checked = Checked(name, test.kind, test.tolerated)
        if examples.task not in test.tasks:
            checked.skipped = "task"
        elif test.waits:
            checked.skipped = "declared"
        else:
            rng = random.Random(f"{seed}:{name}")
            cases = _known(test, train, sample, rng) if test.kind == "minimal" else _rewritten(test, examples, answers, entities, sample, rng)
            now = clock()
            try:
                _ask(checked, model, cases, examples, until=now + (until - now) / (len(tests) - place), clock=clock)
            except WenfangError as e:  # a chosen and tested model is not lost because it stumbles here: the report says that it did
                checked = Checked(name, test.kind, test.tolerated, skipped="error", reason=e.code)
        found.append(checked)
        watched.advance(1)
    return found


def _ask(checked: Checked, model: Answering, cases: Sequence[_Case], examples: Examples, *, until: float, clock: Callable[[], float]) -> None:
    outcomes: list[bool] = []
    for start in range(0, len(cases), BATCH):
        if clock() >= until:
            break
        part = cases[start : start + BATCH]
        asked = part[0].question
        for case in part[1:]:
            asked += case.question
        for case, output in zip(part, ask(model, asked), strict=True):
            after = _answer(output)
            failed = not _same(after, case.wanted)
            outcomes.append(failed)
            if case.before is not None:
                right_before, right_after = _same(case.before, case.gold), _same(after, case.gold)
                checked.harmed += right_before and not right_after
                checked.mended += right_after and not right_before
            if failed and len(checked.rows) < ROWS_KEPT:
                checked.rows.append(
                    {"row": case.row, "id": examples.ids[case.row] if case.row >= 0 and examples.ids else "", "before": _shown(case.before), "after": _shown(after)}
                )
    checked.n, checked.failures = len(outcomes), sum(outcomes)
    if not outcomes:
        checked.skipped = "time" if cases else "nothing"
        return
    rate = interval(Counts("accuracy", np.array(outcomes, np.int64)[:, None]))
    checked.rate, checked.low, checked.high = rate.score, rate.low, rate.high


def _rewritten(test: RobustnessTest, examples: Examples, answers: Sequence[Output], entities: Mapping[str, Sequence[str]], sample: int, rng: random.Random) -> list[_Case]:
    cases: list[_Case] = []
    for row in rng.sample(range(len(examples)), len(examples)):
        if len(cases) >= sample:
            break
        before, gold = _answer(answers[row]), _gold(examples, row)
        if test.kind == "direction" and (gold not in test.labels or before != gold):
            continue
        text, spans = examples.texts[row], examples.spans[row] if examples.spans else ()
        edits = PERTURBATIONS[test.perturbation](Source(text, spans, entities, test.share, rng))
        if not edits or (changed := apply(text, edits)) == text:
            continue
        wanted = test.labels[gold] if test.kind == "direction" else before
        if examples.task == "tagging":
            wanted, gold = moved(before, edits), moved(gold, edits)
            if wanted is None or gold is None:
                continue
            before = wanted
        cases.append(_Case(row, _question(examples, row, changed), before, wanted, wanted if test.kind == "direction" else gold))
    return cases


def _known(test: RobustnessTest, train: Examples, sample: int, rng: random.Random) -> list[_Case]:
    if test.source == "train":
        if train.grades or not _has_answers(train):
            return []
        rows = rng.sample(range(len(train)), min(sample, len(train)))
        return [_Case(-1, _question(train, row, train.texts[row]), None, _gold(train, row), None) for row in rows]
    if train.task != "classification":
        return []
    known = set(train.labels)
    return [_Case(-1, Examples(train.task, [text]), None, label, None) for text, label in test.written() if label in known]


def _has_answers(examples: Examples) -> bool:
    return bool(examples.labels or examples.label_sets or examples.spans)


def _question(examples: Examples, row: int, text: str) -> Examples:
    """One text to ask, with its second text where there are pairs."""
    return Examples(examples.task, [text], texts_b=[examples.texts_b[row]] if examples.texts_b else [])


def _entities(train: Examples) -> dict[str, list[str]]:
    """Texts of the spans of each label."""
    found: dict[str, set[str]] = {}
    for text, spans in zip(train.texts, train.spans, strict=False):
        for span in spans:
            seen = found.setdefault(span.label, set())
            if len(seen) < ENTITIES_KEPT:
                seen.add(text[span.start : span.end])
    return {label: sorted(texts) for label, texts in found.items()}


def _gold(examples: Examples, row: int) -> Any:
    if examples.task == "tagging":
        return examples.spans[row]
    if examples.task == "multilabel":
        return tuple(sorted(examples.label_sets[row]))
    return examples.grades[row] if examples.grades else examples.labels[row]


def _answer(output: Output) -> Any:
    """What an output says, comparable: spans, sorted labels, a label, or a grade."""
    if output.spans is not None:
        return tuple(output.spans)
    if output.labels is not None:
        return tuple(sorted(output.labels))
    return output.label if output.label is not None else output.score


def _same(a: Any, b: Any) -> bool:
    return abs(a - b) < SAME_GRADE if isinstance(a, float) and isinstance(b, float) else a == b


def _shown(answer: Any) -> str:
    if isinstance(answer, tuple):
        parts = cast("tuple[Any, ...]", answer)
        return " ".join(f"{p.start}-{p.end}:{p.label}" if isinstance(p, Span) else str(p) for p in parts)
    return f"{answer:.3f}" if isinstance(answer, float) else str(answer or "")


def brittle(checked: Sequence[Checked], most: int = 3) -> list[tuple[str, dict[str, Any]]]:
    """Sentences about the tests that certainly fail more often than is tolerated, the worst first."""
    bad = sorted((c for c in checked if c.bad), key=lambda c: c.tolerated - c.low)
    return [
        (f"verdict.brittle-{c.kind}", {"test": told(c.name), "rate": 100 * c.rate, "low": 100 * c.low, "high": 100 * c.high, "n": c.n, "tolerated": 100 * c.tolerated})
        for c in bad[:most]
    ]
