"""Bytes as files named by their SHA-256, in 256 folders: the embedded default. Any number of processes may use one folder at once."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Self
from urllib.parse import unquote

from wenfang.core.durable import crash_point, disk_error, fsync_folder, publish_file
from wenfang.core.errors import Broken, Invalid, NotFound
from wenfang.core.home import Home

from .base import CHUNK_BYTES, BlobStore, checked_name, chunks_of

__all__ = ["FileBlobs"]

DRAFT = ".tmp-"
STALE_S = 3600.0


class FileBlobs(BlobStore):
    """Blobs under a folder: ``ab/cdef…``. A file appears there complete and durable, or not at all.

    Args:
        folder: made if it is not there; drafts that a killed process left more than an hour ago are removed.

    Raises:
        Broken: `home.write-failed`.
    """

    form = "file: or file:///path"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._clean()
        except OSError as e:
            raise disk_error(e, folder) from e

    @classmethod
    def open(cls, url: str, home: Home) -> Self:
        """Open ``file:`` (blobs/ of the home) or ``file:///path``."""
        if url in {"file:", "file://"}:
            return cls(home.blobs)
        if not url.startswith("file:///"):
            raise Invalid("store.bad-url", url=url, known=cls.form)
        return cls(Path(unquote(url.removeprefix("file://"))))

    def _clean(self) -> None:
        oldest = time.time() - STALE_S
        with os.scandir(self.folder) as entries:
            stale = [e.path for e in entries if e.name.startswith(DRAFT) and e.stat(follow_symlinks=False).st_mtime < oldest]
        for path in stale:
            Path(path).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / checked_name(name)[:2] / name[2:]

    # ------------------------------------------------------------ writing
    def put(self, data: bytes) -> str:
        """Keep ``data``; returns its name."""
        name = hashlib.sha256(data).hexdigest()
        if not self._complete(name, len(data)):
            self.put_chunks((data,))
        return name

    def put_file(self, path: Path) -> str:
        """Keep the bytes of ``path``, copied in pieces."""
        return self.put_chunks(chunks_of(path))

    def put_chunks(self, chunks: Iterable[bytes]) -> str:
        """Keep a stream; if the stream raises, nothing is kept.

        Cost: one pass, one piece in memory; fsync of the file and its folder.
        """
        sha, size = hashlib.sha256(), 0
        draft: Path | None = None
        try:
            fd, place = tempfile.mkstemp(prefix=DRAFT, dir=self.folder)
            draft = Path(place)
            with os.fdopen(fd, "wb") as f:
                os.fchmod(fd, 0o644)
                crash_point("write")
                for chunk in chunks:
                    sha.update(chunk)
                    size += len(chunk)
                    f.write(chunk)
            name = sha.hexdigest()
            if not self._complete(name, size):
                publish_file(draft, self._room(name))
                draft = None
            return name
        except OSError as e:
            raise disk_error(e, self.folder) from e
        finally:
            if draft is not None:
                draft.unlink(missing_ok=True)

    def _complete(self, name: str, size_bytes: int) -> bool:
        """Whether the blob is there in full length; its folder is made durable, for whoever wrote it may not have come to that yet."""
        path = self._path(name)
        try:
            if path.stat().st_size != size_bytes:
                return False
            fsync_folder(path.parent)
            return True
        except FileNotFoundError:
            return False
        except OSError as e:
            raise disk_error(e, path) from e

    def _room(self, name: str) -> Path:
        path = self._path(name)
        if not path.parent.is_dir():
            crash_point("mkdir")
            path.parent.mkdir(exist_ok=True)
            fsync_folder(self.folder)
        return path

    # ------------------------------------------------------------ reading
    @contextmanager
    def _source(self, name: str) -> Generator[IO[bytes]]:
        path = self._path(name)
        try:
            f = open(path, "rb")  # noqa: SIM115 closed below; a missing blob must not look like a failed read
        except (FileNotFoundError, NotADirectoryError) as e:
            raise NotFound("blob.missing", name=name) from e
        except OSError as e:
            raise Broken("blob.unreadable", name=name, reason=e.strerror or str(e)) from e
        with f:
            yield f

    def get(self, name: str) -> bytes:
        """The bytes, checked against the name."""
        with self._source(name) as f:
            try:
                data = f.read()
            except OSError as e:
                raise Broken("blob.unreadable", name=name, reason=e.strerror or str(e)) from e
        if hashlib.sha256(data).hexdigest() != name:
            raise Broken("blob.damaged", name=name)
        return data

    def fetch(self, name: str, to: Path) -> None:
        """Copy a blob to ``to``, checked while it is copied; ``to`` appears complete or not at all (but is not fsynced)."""
        with self._source(name) as source:
            draft: Path | None = None
            try:
                to.parent.mkdir(parents=True, exist_ok=True)
                fd, place = tempfile.mkstemp(prefix=DRAFT, dir=to.parent)
                draft = Path(place)
                with os.fdopen(fd, "wb") as f:
                    os.fchmod(fd, 0o644)
                    for chunk in _checked_chunks(source, name):
                        f.write(chunk)
                draft.replace(to)
                draft = None
            except OSError as e:
                raise disk_error(e, to) from e
            finally:
                if draft is not None:
                    draft.unlink(missing_ok=True)

    def has(self, name: str) -> bool:
        """Whether the blob is there."""
        return self._path(name).is_file()


def _checked_chunks(source: IO[bytes], name: str) -> Iterator[bytes]:
    sha = hashlib.sha256()
    while True:
        try:
            chunk = source.read(CHUNK_BYTES)
        except OSError as e:
            raise Broken("blob.unreadable", name=name, reason=e.strerror or str(e)) from e
        if not chunk:
            break
        sha.update(chunk)
        yield chunk
    if sha.hexdigest() != name:
        raise Broken("blob.damaged", name=name)
