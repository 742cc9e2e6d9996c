"""Which reader a file gets: by what its first bytes look like and what its name says. Knows readers only through their registry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wenfang.core.errors import Invalid
from wenfang.core.registry import Registry

from .readers.base import Reader
from .source import open_source

__all__ = ["READERS", "open_reader"]

READERS: Registry[Reader] = Registry("reader", package="wenfang.data.readers", base=Reader)
SUFFIX_WEIGHT = 0.3
"""What the name adds to what the content says."""


def open_reader(path: Path, wanted: Sequence[str] = ()) -> tuple[Reader, bool]:
    """(a reader of ``path``, whether its suffix says another format than its content).

    Raises:
        Invalid: what ``open_source`` raises; `dataset.binary-file`, `dataset.damaged-file`, `dataset.file-blank`.
    """
    source = open_source(path)
    head = source.head()
    if source.encoding and not head.strip() and source.size_bytes <= len(head) * 4:
        raise Invalid("dataset.file-blank", file=source.name)
    suffix = path.suffix.lower()
    kinds = [READERS.get(name) for name in READERS.names()]
    by_suffix = [k for k in kinds if suffix in k.suffixes]
    scores = {k: s + SUFFIX_WEIGHT * (k in by_suffix) for k in kinds if k.binary is not bool(source.encoding) and (s := k.sniff(head)) > 0}
    if not scores:
        if by_suffix and by_suffix[0].binary:
            raise Invalid("dataset.damaged-file", file=source.name, format=by_suffix[0].name, reason="its first bytes are not of that format")
        raise Invalid("dataset.binary-file", file=source.name, known=READERS.names())
    best = max(scores, key=lambda k: scores[k])
    if by_suffix and by_suffix[0].binary and not best.binary:
        raise Invalid("dataset.damaged-file", file=source.name, format=by_suffix[0].name, reason="it holds text")
    return best(source, wanted), bool(by_suffix) and best not in by_suffix and not by_suffix[0].generic
