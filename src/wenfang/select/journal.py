"""The journal of a selection: what is done stands on disk, so that a killed selection goes on where it was.

One JSON line per step, rewritten as a whole and durably (a selection has tens of steps). Time spent is part of it: the budget
counts across restarts. Knows nothing of what the steps mean.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import orjson

from wenfang.core.durable import write_file
from wenfang.core.examples import Examples, Output
from wenfang.core.ids import sha256_hex

__all__ = ["Journal", "fingerprint", "steps_of"]


def fingerprint(parts: dict[str, Any], *data: Examples) -> str:
    """A hash of a request and the examples it is about; equal requests may share a journal."""
    columns = [sha256_hex(msgspec.msgpack.encode([d.task, {name: _encodable(column) for name, column in d.columns().items() if column}])) for d in data]
    return sha256_hex(orjson.dumps([parts, columns], option=orjson.OPT_SORT_KEYS, default=str))


def _encodable(column: list[Any]) -> list[Any]:
    return [v.encode("utf-8", "surrogatepass") if isinstance(v, str) else v for v in column]


def steps_of(work: Path, kind: str) -> list[dict[str, Any]]:
    """The steps of one kind that the journal in ``work`` holds, whatever request it belongs to; none without a journal."""
    path = work / "journal.jsonl"
    entries: list[dict[str, Any]] = [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.is_file() else []
    return [e for e in entries if e["kind"] == kind]


class Journal:
    """Steps of one selection in ``work/journal.jsonl``; a journal of another request is thrown away with the whole folder.

    Args:
        work: a folder that belongs to the selection.
        request: hash of the request.
        clock: seconds, for the time spent.
    """

    def __init__(self, work: Path, request: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.work = work
        self.entries: list[dict[str, Any]] = []
        self._path = work / "journal.jsonl"
        old = [orjson.loads(line) for line in self._path.read_bytes().splitlines()] if self._path.is_file() else []
        if old and old[0].get("request") == request:
            self.entries = old
        else:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True, exist_ok=True)
        self.resumed = len(self.entries) > 1
        self._before_s = float(self.entries[-1]["at_s"]) if self.entries else 0.0
        self._clock = clock
        self._began = clock()
        if not self.entries:
            self.add("begin", request=request)

    def spent_s(self) -> float:
        """Seconds this selection has taken, those before a restart included."""
        return self._before_s + self._clock() - self._began

    def add(self, kind: str, **fields: Any) -> None:
        """Write a step down, durably."""
        self.entries.append({"kind": kind, "at_s": self.spent_s(), **fields})
        write_file(self._path, b"".join(orjson.dumps(e, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY) for e in self.entries))

    def find(self, kind: str) -> list[dict[str, Any]]:
        """The steps of one kind."""
        return [e for e in self.entries if e["kind"] == kind]

    def folder(self, name: str) -> Path:
        """An absent folder for a bundle: what a crash left there is removed."""
        path = self.work / "bundles" / name
        shutil.rmtree(path, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def keep_answers(self, name: str, outputs: list[Output]) -> None:
        """Keep the answers of a run."""
        write_file(self.work / "answers" / f"{name}.msgpack", msgspec.msgpack.encode(outputs))

    def answers(self, name: str) -> list[Output]:
        """The kept answers of a run."""
        return msgspec.msgpack.decode((self.work / "answers" / f"{name}.msgpack").read_bytes(), type=list[Output])
