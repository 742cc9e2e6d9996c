"""One selection from examples to verdict: search, choice on valid, refit on train + valid, and one look at test.

Knows nothing of stores, records or how a replica runs: those are ports.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from wenfang.core.errors import Invalid
from wenfang.core.examples import Examples
from wenfang.core.ids import now
from wenfang.core.registry import Registry
from wenfang.core.text import script_of
from wenfang.models.base import DataShape, Model
from wenfang.stats.scores import Counts

from .choose import Candidate, Choice, Limits
from .confirm import choose_confirmed
from .earlier import Recipe, describe
from .final import Final, finish
from .folding import Folds, confirm_by_folds
from .journal import Journal, fingerprint
from .plan import Plan, Ports
from .report import report
from .search import Found, Search
from .trial import WriteBundle
from .verdict import Sentence, choice_sentences, test_sentences
from .wanted import check_metric

__all__ = ["Limits", "Outcome", "Plan", "Ports", "WriteBundle", "select", "shape_of"]

SCHEMA = 1
LEAST_BUDGET_S = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a selection found."""

    document: dict[str, Any]
    """``selection.json``: every run, measurement, test and sentence."""
    verdict: dict[str, Any]
    """What ``run --json`` prints; the studio fills in the ids."""
    bundle: Path
    """Folder of the final model, under ``work``."""
    counts: Counts
    """Of the final model on test, one row for each example: to compare another model with it."""
    sentences: list[Sentence] = field(default_factory=list[Sentence])
    """The verdict in words: keys of the catalogue with their fields."""
    lang: str | None = None
    written: list[str] = field(default_factory=list[str])
    """Generated texts of the rows of errors; the document holds no texts."""

    @property
    def html(self) -> str:
        """The report; ``report(document, lang=...)`` gives it in the other language."""
        return report(self.document, lang=self.lang)


def select(
    train: Examples,
    valid: Examples,
    test: Examples,
    *,
    families: Mapping[str, type[Model]] | Registry[Model],
    ports: Ports,
    plan: Plan,
    work: Path,
    leaked_test_rows: Sequence[int] = (),
    card: Mapping[str, Any] | None = None,
    pretrained: Sequence[Path] = (),
    guide: Path | None = None,
    upstreams: Sequence[str] = (),
    command: str = "",
    lang: str | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Choose, refit and test a model inside a time budget and hard limits.

    Args:
        train: to learn from.
        valid: to choose by.
        test: looked at once, at the end.
        families: by name.
        ports: where fits and replicas run, who writes bundles, who is told.
        plan: budget, limits, objectives, seed.
        work: folder of this selection; a second call with the same request goes on where a killed one was.
        leaked_test_rows: rows of test that also stand in train or valid.
        card: the data card, for the report.
        pretrained: local directories that families may start from.
        guide: unpacked bundle of a teacher whose hidden states students may match.
        upstreams: servers of the OpenAI protocol that may be asked; texts go there.
        command: how to run it again, for the report.
        lang: of the report.
        clock: seconds, for the budget.

    Raises:
        Invalid: `select.no-family-for-task`, `select.no-run-succeeded`, `select.no-candidate-meets-limits`, `select.no-examples`, `select.no-gold`, `select.budget-too-small`, `select.unknown-metric`, `checks.pattern-too-slow`.
        Cancelled: from ``progress``.
    """
    limits, seed = plan.limits, plan.seed
    for name, examples in (("train", train), ("valid", valid), ("test", test)):
        if not len(examples):
            raise Invalid("select.no-examples", split=name)
        if name != "train" and train.task in {"matching", "embedding"} and not examples.grades and len(set(examples.labels)) < 2:
            raise Invalid("select.no-gold", task=train.task)
    check_metric(plan.metric, valid)
    if plan.budget_s < LEAST_BUDGET_S:
        raise Invalid("select.budget-too-small", budget_s=plan.budget_s, least_s=LEAST_BUDGET_S)
    plan = replace(plan, checks=plan.checks.on(test.texts))
    known = {n: families.get(n) for n in families.names()} if isinstance(families, Registry) else dict(families)
    request = {
        "families": sorted(known),
        "limits": limits.document(),
        **plan.document(),
        "pretrained": [str(p) for p in pretrained],
        "guide": guide and str(guide),
        "upstreams": list(upstreams),
        "version": version("wenfang"),
    }
    journal = Journal(work, fingerprint(request, train, valid, test), clock=clock)
    search = Search(train, valid, plan=remembered(plan, journal), ports=ports, journal=journal, test_n=len(test))
    search.run(known, shape_of(train, pretrained, upstreams, guide))
    found = search.found()
    contenders = [_candidate(f) for f in found]
    folds = confirm_by_folds(search, contenders)
    candidates, choice = choose_confirmed(search, contenders, folds.counts if folds else None)
    final = finish(search, choice, families=known, test=test, leaked_test_rows=leaked_test_rows)
    document = _document(search, found, candidates, choice, final, folds=folds, limits=limits, test=test)
    document.update(command=command, card=dict(card or {}), budget_s=plan.budget_s, seed=seed, spent_s=journal.spent_s(), created_at=now().isoformat(), resumed=journal.resumed)
    ports.progress.stage("report")
    sentences: list[Sentence] = [(key, fields) for key, fields in document["verdict"]]
    return Outcome(document, _verdict(document), final.bundle, final.evaluation.counts, sentences, lang, final.scrutiny.written)


def shape_of(train: Examples, pretrained: Sequence[Path] = (), upstreams: Sequence[str] = (), guide: Path | None = None) -> DataShape:
    """What families may know of the data."""
    lengths = [len(t) for t in train.texts]
    return DataShape(
        train.task,
        len(train),
        len(train.label_names()),
        sum(lengths) / max(1, len(lengths)),
        max(lengths, default=0),
        tuple(pretrained),
        graded=bool(train.grades),
        pairs=bool(train.texts_b),
        target_mean=sum(map(len, train.targets)) / max(1, len(train.targets)),
        spaced=_spaced(train.texts),
        upstreams=tuple(upstreams),
        guide=guide,
    )


def _spaced(texts: Sequence[str]) -> float:
    """Share of texts written with blanks between words, from a sample."""
    sample = texts[:: max(1, len(texts) // 500)]
    return sum(script_of(t) in {"latin", "cyrillic", "hangul", "arabic"} for t in sample) / max(1, len(sample))


def remembered(plan: Plan, journal: Journal) -> Plan:
    """The plan with the recipes it began with: other selections may have ended since."""
    for entry in journal.find("earlier"):
        return replace(plan, earlier=tuple(Recipe(r["family"], r["params"]) for r in entry["recipes"]))
    if plan.earlier:
        journal.add("earlier", recipes=[asdict(r) for r in plan.earlier])
    return plan


def _candidate(found: Found) -> Candidate:
    run = found.run
    assert run.latency is not None
    assert run.size_bytes is not None
    return Candidate(run.name, run.family, run.score, found.evaluation.counts, run.latency, run.size_bytes, found.evaluation.constant, run.charged)


def _environment() -> dict[str, Any]:
    return {
        "wenfang": version("wenfang"),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
    }


def _document(
    search: Search, found: list[Found], candidates: list[Candidate], choice: Choice, final: Final, *, folds: Folds | None, limits: Limits, test: Examples
) -> dict[str, Any]:
    valid = {f.run.name: f.evaluation.headline() for f in found}
    by_name = {f.run.name: f for f in found}
    sentences = [
        *choice_sentences(choice, candidates, valid, folds and folds.sentence),
        *final.sentences,
        *test_sentences(final.test, final.paired, final.leaks),
        *final.scrutiny.sentences(),
    ]
    rows = [
        {
            "name": c.name, "family": c.family, "params": by_name[c.name].run.params, "valid": valid[c.name], "macro_f1": by_name[c.name].run.metrics.get("macro_f1"), "latency_ms": {"p50": c.latency["p50_ms"], "p99": c.p99_ms},
            "memory_bytes": c.latency["memory_bytes"], "size_bytes": c.size_bytes, "fit_s": by_name[c.name].run.fit_s, "on_front": c.name in choice.front,
            "role": "chosen" if c.name == choice.chosen else "runner-up" if c.name == choice.runner_up else "excluded" if c.name in choice.excluded else "other",
            "breaches": [asdict(b) for b in choice.excluded.get(c.name, [])],
        }
        for c in sorted(candidates, key=lambda c: -c.score)
    ]  # fmt: skip
    chosen = by_name[choice.chosen]
    return {
        "schema": SCHEMA, "task": search.train.task, "metric": chosen.evaluation.metric, "limits": limits.document(), "rows": {"train": len(search.train), "valid": len(search.valid), "test": len(test)},
        "labels_n": len(search.train.label_names()), "meta": describe(search.train).document(), "objectives": list(search.plan.objectives), "runs": [r.document() for r in search.all_runs()], "given_up": [{"key": e["key"], **e["fields"]} for e in search.journal.find("given-up")],
        "candidates": rows, "choice": asdict(choice), "folds": folds and folds.document(), "valid": chosen.evaluation.document(), "final": final.document(), "verdict": sentences, "environment": {**_environment(), **chosen.run.environment},
    }  # fmt: skip


def _verdict(document: Mapping[str, Any]) -> dict[str, Any]:
    """The object of ``run --json``."""
    final, chosen = document["final"], next(c for c in document["candidates"] if c["role"] == "chosen")
    fields = ("name", "family", "valid", "latency_ms", "memory_bytes", "size_bytes", "fit_s", "role", "on_front")
    return {
        "dataset_version": None, "model_version": None, "family": chosen["family"], "metric": document["metric"], "valid": chosen["valid"], "test": final["test"],
        "latency_ms": {"p50": final["latency"]["p50_ms"], "p99": final["latency"]["p99_ms"]}, "size_bytes": final["size_bytes"], "service": None, "report": None,
        "candidates": [{k: c[k] for k in fields} for c in document["candidates"]],
    }  # fmt: skip
