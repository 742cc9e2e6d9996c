"""What every store of bytes is: the port ``Blobs``, opened by a URL."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Self

from wenfang.core.errors import Broken, NotFound
from wenfang.core.home import Home
from wenfang.core.ports import Blobs

__all__ = ["CHUNK_BYTES", "BlobStore", "checked_name", "chunks_of"]

CHUNK_BYTES = 1 << 20
_NAME = re.compile(r"[0-9a-f]{64}")


def checked_name(name: str) -> str:
    """``name`` if it can be the name of a blob at all (64 hexadecimal digits); never a path.

    Raises:
        NotFound: `blob.missing`.
    """
    if not _NAME.fullmatch(name):
        raise NotFound("blob.missing", name=ascii(name[:80]))
    return name


def chunks_of(path: Path) -> Iterator[bytes]:
    """The bytes of a file in pieces of ``CHUNK_BYTES``.

    Raises:
        Broken: `blob.source-unreadable`.
    """
    try:
        with open(path, "rb") as f:
            while chunk := f.read(CHUNK_BYTES):
                yield chunk
    except OSError as e:
        raise Broken("blob.source-unreadable", path=str(path), reason=e.strerror or str(e)) from e


class BlobStore(Blobs):
    """A store of bytes. The promises are tested for every store in ``tests/contracts/test_blobs.py``."""

    name: ClassVar[str]
    form: ClassVar[str]
    """How its URL looks, for messages."""

    @classmethod
    @abstractmethod
    def open(cls, url: str, home: Home) -> Self:
        """Open the store at ``url``."""
