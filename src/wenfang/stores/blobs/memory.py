"""Bytes in memory: the twin of the file store for fast tests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Self

from wenfang.core.durable import disk_error
from wenfang.core.errors import Broken, NotFound
from wenfang.core.home import Home
from wenfang.core.ids import sha256_hex

from .base import BlobStore, checked_name, chunks_of

__all__ = ["MemoryBlobs"]


class MemoryBlobs(BlobStore):
    """Blobs in this process."""

    form = "memory:"

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}

    @classmethod
    def open(cls, url: str, home: Home) -> Self:  # noqa: ARG003 it is nowhere
        """A new empty store."""
        return cls()

    def put(self, data: bytes) -> str:
        """Keep ``data``; returns its name."""
        name = sha256_hex(data)
        self.contents[name] = bytes(data)
        return name

    def put_file(self, path: Path) -> str:
        """Keep the bytes of ``path``."""
        return self.put_chunks(chunks_of(path))

    def put_chunks(self, chunks: Iterable[bytes]) -> str:
        """Keep a stream."""
        return self.put(b"".join(chunks))

    def get(self, name: str) -> bytes:
        """The bytes, checked against the name."""
        data = self.contents.get(checked_name(name))
        if data is None:
            raise NotFound("blob.missing", name=name)
        if sha256_hex(data) != name:
            raise Broken("blob.damaged", name=name)
        return data

    def fetch(self, name: str, to: Path) -> None:
        """Copy a blob to a file."""
        data = self.get(name)
        try:
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(data)
        except OSError as e:
            raise disk_error(e, to) from e

    def has(self, name: str) -> bool:
        """Whether the blob is there."""
        return checked_name(name) in self.contents
