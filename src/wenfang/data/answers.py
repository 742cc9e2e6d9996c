"""Answers on their way into a file: row after row, durable in steps, continued after a crash where it stopped. Knows nothing of models or how a row was answered.

``OUTPUT.part`` holds the rows, ``OUTPUT.part.json`` says how many of its bytes count and for which request. A row that stands behind
those bytes is written again; so the file is the same as if nothing had happened.
"""

from __future__ import annotations

import csv
import fcntl
import io
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from wenfang.core.durable import crash_point, disk_error, publish_file, write_file
from wenfang.core.errors import Conflict, Invalid, NotFound

__all__ = ["FORMATS", "AnswerFile", "check_output"]

FORMATS = (".jsonl", ".csv")
STEP_S = 0.5
"""Between two steps; what was answered since the last one is answered again after a crash."""
STEP_BYTES = 8 << 20


def check_output(path: Path, *, inputs: Path | None = None) -> None:
    """Raise unless answers can go to ``path``.

    Raises:
        Invalid: `batch.output-format`, `batch.same-file`; NotFound: `batch.no-folder`.
    """
    if path.suffix.lower() not in FORMATS:
        raise Invalid("batch.output-format", file=path.name, known=FORMATS)
    if not path.parent.is_dir():
        raise NotFound("batch.no-folder", path=str(path.parent))
    if inputs is not None and path.exists() and path.samefile(inputs):
        raise Invalid("batch.same-file", file=str(path))


class AnswerFile:
    """One output file, JSON lines or CSV by its suffix.

    Args:
        path: of the output.
        digest: of everything that the answers depend on; rows of another request are thrown away.
        columns: of CSV; lists and tables in them are JSON.
        overwrite: an output that is there is replaced, at the end.

    Raises:
        Conflict: `batch.output-exists`, `batch.in-use`; Broken: `home.write-failed`.
    """

    def __init__(self, path: Path, digest: str, columns: Sequence[str], *, overwrite: bool = False) -> None:
        self.path = path
        self.rows = 0
        """Answered, errors among them."""
        self.failed: Counter[str] = Counter()
        """Rows with an error by code."""
        self.finished = False
        """The output is there and whole."""
        self.anew = False
        """Rows of another request were thrown away."""
        self._digest, self._columns, self._csv = digest, list(columns), path.suffix.lower() == ".csv"
        self._part, self._state = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.json")
        self._bytes = 0
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._step_at = time.monotonic()
        try:
            self._begin(overwrite=overwrite)
        except OSError as e:
            raise disk_error(e, path) from e

    def _begin(self, *, overwrite: bool) -> None:
        state = self._earlier()
        same = state.get("digest") == self._digest
        if same and state.get("whole") and not self._part.exists() and self.path.is_file() and self.path.stat().st_size == state["bytes"]:
            self._take(state)
            self.finished = True
            return
        if self.path.exists() and not overwrite:
            raise Conflict("batch.output-exists", path=str(self.path))
        self._file = open(self._part, "ab")  # noqa: SIM115 it stays open until ``finish`` or ``close``
        if not self._locked():
            self._file.close()
            raise Conflict("batch.in-use", path=str(self.path))
        there = os.fstat(self._file.fileno()).st_size
        if same and there >= state["bytes"]:
            self._take(state)
        elif state or there:
            self.anew = True
        self._file.truncate(self._bytes)
        if self._csv and not self._bytes:
            self._add(self._line(self._columns))

    def _locked(self) -> bool:
        """Whether the part is ours alone, and has not become an output since it was opened."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return self._part.stat().st_ino == os.fstat(self._file.fileno()).st_ino
        except (BlockingIOError, FileNotFoundError):
            return False

    def _earlier(self) -> dict[str, Any]:
        try:
            state = orjson.loads(self._state.read_bytes())
        except (FileNotFoundError, orjson.JSONDecodeError):
            return {}
        return state if isinstance(state, dict) else {}  # pyright: ignore[reportUnknownVariableType]

    def _take(self, state: Mapping[str, Any]) -> None:
        self.rows, self._bytes, self.failed = state["rows"], state["bytes"], Counter(state["failed"])

    def _line(self, cells: Sequence[Any]) -> bytes:
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerow([orjson.dumps(c).decode() if isinstance(c, (list, dict, tuple)) else c for c in cells])
        return out.getvalue().encode("utf-8")

    def add(self, record: Mapping[str, Any]) -> None:
        """The next row; ``error`` in it counts as failed. Now and then it is a step, which waits for the disk.

        Raises:
            Broken: `home.write-failed`; what was durable stays.
        """
        if self._csv:
            if lost := record.keys() - set(self._columns):
                raise KeyError(*lost)
            self._add(self._line([record.get(name) for name in self._columns]))
        else:
            self._add(orjson.dumps(record) + b"\n")
        self.rows += 1
        if error := record.get("error"):
            self.failed[error] += 1
        if self._waiting_bytes > STEP_BYTES or time.monotonic() - self._step_at > STEP_S:
            self.step()

    def _add(self, line: bytes) -> None:
        self._waiting.append(line)
        self._waiting_bytes += len(line)

    def step(self, *, whole: bool = False) -> None:
        """Make all rows so far durable.

        Raises:
            Broken: `home.write-failed`.
        """
        data = b"".join(self._waiting)
        try:
            crash_point("write")
            self._file.write(data)
            self._file.flush()
            crash_point("fsync")
            os.fsync(self._file.fileno())
        except OSError as e:
            raise disk_error(e, self._part) from e
        self._waiting, self._waiting_bytes = [], 0
        self._bytes += len(data)
        state = {"digest": self._digest, "rows": self.rows, "bytes": self._bytes, "failed": dict(self.failed), "whole": whole}
        write_file(self._state, orjson.dumps(state))
        self._step_at = time.monotonic()

    def finish(self) -> None:
        """Everything is answered: the part becomes the output."""
        self.step(whole=True)
        try:
            publish_file(self._part, self.path)
        except OSError as e:
            raise disk_error(e, self.path) from e
        self.finished = True
        self.close()

    def forget(self) -> None:
        """Nobody will ask for this output again: the state goes."""
        self._state.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the part."""
        if hasattr(self, "_file"):
            try:
                self._file.close()
            except OSError as e:  # its buffer could not be written; those rows do not count
                raise disk_error(e, self._part) from e
