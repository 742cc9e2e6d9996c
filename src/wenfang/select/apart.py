"""Fits in a process of their own: data and models travel as files, never pickled; the curve is heard while the model learns.

The parent writes the examples once, starts the entry below through a port, and loads what the child saved. Knows nothing of how
processes run; that the monotonic clock is the machine's, so that a deadline means the same on both sides only there, it does know.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self, get_type_hints

import msgspec

from wenfang.core.durable import write_file
from wenfang.core.errors import WenfangError
from wenfang.core.examples import Examples
from wenfang.core.ports import Workers
from wenfang.models.base import Curve, Model

from .trial import Learned, fit_here

__all__ = ["FitApart", "main", "read_examples", "write_examples"]

ENTRY = "wenfang.select.apart:main"
HEAVY_RANK = 10
"""Families of this cost and above are fitted apart; the others are done before a process has started."""
WORTH_S = 45.0
"""A fit with less time than this stays here: starting a process and loading its libraries would eat it."""
GRACE = 0.25
"""A child may end so much of its time later, and ten seconds, before it is ended."""
GRACE_S = 10.0


class FitApart:
    """``Fit`` in child processes for heavy families, in this process for the others.

    Args:
        workers: starts the processes.
        parallel: how many at once; the cores are dealt out among them, and every family is fitted apart.
        logs: folder in which the log of a failed fit is kept, the last one of each family.
    """

    def __init__(self, workers: Workers, *, parallel: int = 1, logs: Path | None = None) -> None:
        self.workers = workers
        self.parallel = parallel
        self.logs = logs
        self._folder = tempfile.TemporaryDirectory(prefix="wf-fit-")
        self._written: dict[int, tuple[Examples, Path]] = {}  # the examples are held, so that their id stays theirs
        self._lock = threading.Lock()
        self._slots: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
        for cores in deal_cores(parallel):
            self._slots.put(cores)

    def __call__(self, model: Model, train: Examples, valid: Examples | None, curve: Curve) -> Learned:
        """Fit ``model``; the answer's model is the one that was saved and loaded again where it was fitted apart."""
        left_s = curve.left_s()
        if self.parallel == 1 and (model.cost_rank < HEAVY_RANK or (left_s is not None and left_s < WORTH_S)):
            return fit_here(model, train, valid, curve)
        cores = self._slots.get()
        try:
            return self._fit(model, train, valid, curve, cores)
        finally:
            self._slots.put(cores)

    def close(self) -> None:
        """Drop the written examples."""
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _fit(self, model: Model, train: Examples, valid: Examples | None, curve: Curve, cores: list[int]) -> Learned:
        folder = Path(tempfile.mkdtemp(dir=self._folder.name))
        left_s, family = curve.left_s(), type(model)
        arguments = {
            "family": f"{family.__module__}:{family.__qualname__}", "name": model.name, "task": model.task, "hyper": model.hyper.model_dump(mode="json"), "seed": model.seed,
            "train": str(self._data(train)), "valid": str(self._data(valid)) if valid is not None else None, "folder": str(folder), "deadline": curve.deadline, "cores": cores,
            "checkpoints": str(curve.checkpoints) if curve.checkpoints else None, "left_s": None,
        }  # fmt: skip
        if self.workers.elsewhere:
            arguments |= {"deadline": None, "left_s": left_s, "cores": [], "checkpoints": None}

        def heard(line: Mapping[str, Any]) -> None:
            if line["kind"] == "note":
                curve.progress.note(line["key"], **line["fields"])
            elif "step" in line["figures"]:
                curve.point(line["figures"]["step"], loss=line["figures"].get("loss"), valid_score=line["figures"].get("valid"))
            else:
                curve.progress.advance(0, **line["figures"])

        try:
            self.workers.run(ENTRY, arguments, folder, heard=heard, limit_s=None if left_s is None else (1 + GRACE) * left_s + GRACE_S)
            told = json.loads((folder / "learned.json").read_bytes())
            loaded = family.load(folder / "model", task=model.task, hyper=family.Hyper.model_validate(told["hyper"]), labels=told["labels"])
            loaded.seed = model.seed
            return Learned(loaded, told["refit_params"], told["environment"], told["cut"])
        except WenfangError:
            if self.logs is not None and (folder / "log").is_file():
                self.logs.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / "log", self.logs / f"fit-{model.name}.log")
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _data(self, examples: Examples) -> Path:
        """The file that holds these examples, written when first asked for."""
        with self._lock:
            known = self._written.get(id(examples))
            if known is None:
                path = Path(self._folder.name) / f"data-{len(self._written)}.msgpack"
                write_examples(path, examples)
                known = self._written[id(examples)] = (examples, path)
            return known[1]


def deal_cores(parallel: int) -> list[list[int]]:
    """The cores this process may use, dealt out.

    >>> [len(c) > 0 for c in deal_cores(3)]
    [True, True, True]
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if parallel == 1 or not cores:
        return [cores] * parallel
    return [cores[i::parallel] or [cores[i % len(cores)]] for i in range(parallel)]


def write_examples(path: Path, examples: Examples) -> None:
    """Write examples as msgpack; texts with lone surrogates come back as they were."""

    def plain(value: Any) -> Any:
        return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value

    columns = {name: [plain(v) for v in column] for name, column in examples.columns().items() if column}
    write_file(path, msgspec.msgpack.encode({"task": examples.task, "columns": columns}))


def read_examples(path: Path) -> Examples:
    """The examples that ``write_examples`` wrote."""
    data = msgspec.msgpack.decode(path.read_bytes())
    hints = get_type_hints(Examples)
    columns: dict[str, Any] = {}
    for f in fields(Examples):
        if f.name in data["columns"]:
            column = data["columns"][f.name]
            columns[f.name] = [v.decode("utf-8", "surrogatepass") for v in column] if hints[f.name] == list[str] else msgspec.convert(column, hints[f.name])
    return Examples(data["task"], **columns)


class _Teller:
    """Progress of the child: lines for the parent, at most a few in a second unless they are points of the curve."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 open as long as the process
        self._told_at = 0.0

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        """Nothing: a fit is one stage."""

    def advance(self, n: int = 1, /, **figures: Any) -> None:  # noqa: ARG002 what counts here are the figures
        """Pass figures on."""
        if "step" in figures or time.monotonic() - self._told_at > 0.3:
            self._told_at = time.monotonic()
            self._tell(kind="figures", figures=figures)

    def note(self, key: str, /, **fields: Any) -> None:
        """Pass a sentence on."""
        self._tell(kind="note", key=key, fields=fields)

    def _tell(self, **line: Any) -> None:
        self._file.write(json.dumps(line, default=float).encode() + b"\n")


def main(arguments: Mapping[str, Any]) -> None:
    """Entry of the child: fit one model and save it."""
    if arguments["cores"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, arguments["cores"])
    folder = Path(arguments["folder"])
    module, _, name = arguments["family"].partition(":")
    family: type[Model] = getattr(importlib.import_module(module), name)
    family.name = arguments["name"]
    checkpoints = arguments["checkpoints"]
    deadline = arguments["deadline"] if arguments["left_s"] is None else time.monotonic() + arguments["left_s"]
    curve = Curve(_Teller(arguments["told"]), deadline, checkpoints=Path(checkpoints) if checkpoints else None)
    train = read_examples(Path(arguments["train"]))
    valid = read_examples(Path(arguments["valid"])) if arguments["valid"] else None
    model = family(family.Hyper.model_validate(arguments["hyper"]), task=arguments["task"], seed=arguments["seed"])
    learned = fit_here(model, train, valid, curve)
    (folder / "model").mkdir()
    learned.model.save(folder / "model")
    told = {
        "labels": learned.model.labels_,
        "hyper": learned.model.hyper.model_dump(mode="json"),
        "refit_params": learned.refit_params,
        "environment": learned.environment,
        "cut": learned.cut,
    }
    write_file(folder / "learned.json", json.dumps(told).encode())
