"""What one room needs of another, as Protocols. Engines take these as arguments; only ``studio/wiring.py`` knows who stands behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from .examples import Output
from .records import AuditEntry, Event, Pointer, Record

__all__ = [
    "Blobs",
    "Cancelled",
    "Changes",
    "MeasuredReplica",
    "MeasuringHost",
    "Process",
    "Progress",
    "Quiet",
    "Replica",
    "ReplicaHost",
    "Runtime",
    "Signer",
    "Tables",
    "Verifier",
    "Workers",
]

R = TypeVar("R", bound=Record)


@dataclass(slots=True)
class Changes:
    """What one operation wants written: all of it in one short transaction, or nothing."""

    puts: list[Record] = field(default_factory=list[Record])
    """New records."""
    updates: list[tuple[Record, int]] = field(default_factory=list[tuple[Record, int]])
    """(record with its new revision, the revision it replaces)."""
    pointers: list[Pointer] = field(default_factory=list[Pointer])
    events: list[Event] = field(default_factory=list[Event])
    audit: list[AuditEntry] = field(default_factory=list[AuditEntry])
    """``seq``, ``previous`` and ``hash`` are filled in by the store."""


class Tables(Protocol):
    """Records, pointers, events and the audit chain. Thread-safe."""

    def get(self, kind: type[R], id: str) -> R | None:
        """The record, or None."""
        ...

    def find(self, kind: type[R], *, where: Mapping[str, Any] | None = None, limit: int = 1000, after: str | None = None, newest_first: bool = False) -> list[R]:
        """Records whose indexed fields equal ``where`` (a list value: any of it; None: is null), by id; ``after`` is the last id of the page before."""
        ...

    def pointer(self, kind: str, key: str) -> Pointer | None:
        """What ``key`` stands for now."""
        ...

    def pointers(self, kind: str, key: str | None = None) -> list[Pointer]:
        """The history of one key, newest first; without a key, the present pointer of every key."""
        ...

    def commit(self, changes: Changes) -> None:
        """Write all or nothing, durably. Raises Conflict: `store.exists`, `store.changed-meanwhile`."""
        ...

    def events(self, after: int = 0, limit: int = 1000) -> list[Event]:
        """Events in order."""
        ...

    def audit(self, after: int = 0, limit: int = 1000) -> list[AuditEntry]:
        """Audit entries in order."""
        ...

    def close(self) -> None:
        """Let go of the database."""
        ...


class Blobs(Protocol):
    """Content-addressed bytes: the name of a blob is its SHA-256."""

    def put(self, data: bytes) -> str:
        """Keep ``data``; returns its name. Durable when it returns."""
        ...

    def put_file(self, path: Path) -> str:
        """Keep the bytes of ``path`` (copied in pieces, bounded memory)."""
        ...

    def put_chunks(self, chunks: Iterable[bytes]) -> str:
        """Keep a stream."""
        ...

    def get(self, name: str) -> bytes:
        """The bytes, checked against the name. Raises NotFound: `blob.missing`; Broken: `blob.damaged`."""
        ...

    def fetch(self, name: str, to: Path) -> None:
        """Copy a blob to a file, checked while it is copied."""
        ...

    def has(self, name: str) -> bool:
        """Whether the blob is there."""
        ...


class Signer(Protocol):
    """Signs as this installation."""

    def sign(self, data: bytes) -> bytes:
        """An Ed25519 signature, 64 bytes."""
        ...

    def key_id(self) -> str:
        """SHA-256 of the public key, first 16 digits."""
        ...


class Verifier(Protocol):
    """Knows the public keys that are trusted here."""

    def verify(self, data: bytes, signature: bytes, key_id: str) -> None:
        """Raises Broken: `signature.bad`, `signature.unknown-signer`."""
        ...


class Cancelled(Exception):
    """Somebody asked this job to stop; raised from ``Progress`` calls."""


class Progress(Protocol):
    """Told how far long work is. Every call may raise ``Cancelled``."""

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        """A new stage begins; ``name`` is a key of the catalogue ``stage.<name>``."""
        ...

    def advance(self, n: int = 1, /, **figures: Any) -> None:
        """``n`` more are done; ``figures`` are shown beside (``best=0.92``)."""
        ...

    def note(self, key: str, /, **fields: Any) -> None:
        """A sentence of the catalogue worth keeping."""
        ...


class Quiet:
    """Progress that nobody watches."""

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        """Nothing."""

    def advance(self, n: int = 1, /, **figures: Any) -> None:
        """Nothing."""

    def note(self, key: str, /, **fields: Any) -> None:
        """Nothing."""


class Replica(Protocol):
    """One running copy of a model version in a process of its own."""

    def predict(self, texts: Sequence[str], /) -> list[Output]:
        """One answer for each text, in order: a real round trip."""
        ...

    def match(self, texts: Sequence[str], texts_b: Sequence[str], /) -> list[Output]:
        """One answer for each pair, in order: a real round trip."""
        ...

    def memory_bytes(self) -> int:
        """Proportional memory (PSS) of the process now."""
        ...

    def close(self) -> None:
        """Stop it."""
        ...


class ReplicaHost(Protocol):
    """Starts replicas: selection measures through it what serving will serve."""

    def start(self, bundle: Path) -> Replica:
        """Start a replica of the unpacked bundle and wait until it answers."""
        ...


class Process(Protocol):
    """One running process of ours."""

    def cpu_s(self) -> float:
        """Processor time so far."""
        ...

    def memory_bytes(self) -> int:
        """Proportional memory (PSS) now."""
        ...

    def close(self, grace_s: float = 5.0) -> None:
        """SIGTERM, then SIGKILL after ``grace_s``; returns when it is gone."""
        ...


class MeasuredReplica(Replica, Protocol):
    """A replica that tells what it takes."""

    @property
    def hello(self) -> Mapping[str, Any]:
        """What it said of itself when it was called."""
        ...

    @property
    def path(self) -> Path:
        """Its socket: others may call it, too."""
        ...

    def cpu_s(self) -> float:
        """Processor time of its process so far."""
        ...


class MeasuringHost(Protocol):
    """Starts replicas and other processes of this machine to measure them."""

    def start(self, bundle: Path, **arguments: Any) -> MeasuredReplica:
        """Start a replica of the unpacked bundle and wait until it answers."""
        ...

    def spawn(self, entry: str, arguments: Mapping[str, Any], log: Path) -> Process:
        """Start ``module:function`` with these arguments (JSON); it ends with this process."""
        ...


class Runtime(Protocol):
    """Where processes run: a supervised process tree, or a cluster."""

    def ensure(self, name: str, entry: str, arguments: Mapping[str, Any], *, restart: bool) -> None:
        """Have a process ``name`` running ``module:function`` with these arguments (JSON); a no-op if it runs already."""
        ...

    def stop(self, name: str, grace_s: float = 10.0) -> None:
        """SIGTERM, then SIGKILL after ``grace_s``; returns at once. A no-op if there is none."""
        ...

    def processes(self) -> dict[str, dict[str, Any]]:
        """By name: ``pid``, ``state`` (running, backing-off, exited), ``code``, ``starts``, ``started_at``."""
        ...


class Workers(Protocol):
    """Runs a piece of work in a process of its own, and waits for it."""

    elsewhere: bool
    """It may run on another machine: cores and the monotonic clock are others there. Files that ``arguments`` name go along if they lie beside ``folder``."""

    def run(self, entry: str, arguments: Mapping[str, Any], folder: Path, *, heard: Callable[[Mapping[str, Any]], None], limit_s: float | None = None) -> None:
        """Run ``module:function`` with ``arguments`` (JSON) and ``told``: a file to which it may append JSON lines.

        Args:
            entry: called with one dictionary.
            arguments: JSON values.
            folder: for what is told and for the log; belongs to this piece of work.
            heard: called with each line; whatever it raises ends the process and is raised here.
            limit_s: the process is ended after so long.

        Raises:
            WenfangError: what the entry refused with.
            Broken: `runtime.worker-died`, `runtime.worker-overran`.
        """
        ...


Clock = Callable[[], float]
