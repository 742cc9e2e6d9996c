"""A file that is to be imported: its bytes, its encoding, its lines. Knows nothing of formats, columns or examples.

The whole file is read once before anything is parsed: that pass gives its SHA-256, proves its encoding and counts its lines. The
second pass hands out blocks of whole lines in UTF-8, so memory stays bounded whatever the file's size.
"""

from __future__ import annotations

import codecs
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wenfang.core.errors import Invalid

__all__ = ["BLOCK_BYTES", "HEAD_BYTES", "Source", "open_source"]

BLOCK_BYTES = 8 << 20
HEAD_BYTES = 1 << 20
LINE_MAX_BYTES = 128 << 20
"""A longer line is refused: it would have to stand in memory whole."""
_MAGIC = (b"PAR1", b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"\x1f\x8b", b"%PDF", b"\x89PNG", b"SQLite format 3", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf")
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


@dataclass(frozen=True, slots=True)
class Source:
    """One file, proven readable.

    Args:
        path: where it lies.
        size_bytes: its size when it was opened.
        sha256: of its bytes.
        encoding: Python's name of it; empty for a binary format.
        skip_bytes: length of the byte order mark.
        newlines: how many line ends it holds.
        changed_ns: when it was last written, as the file system tells it.
    """

    path: Path
    size_bytes: int
    sha256: str
    encoding: str
    skip_bytes: int
    newlines: int
    changed_ns: int

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return self.path.name

    def head(self) -> bytes:
        """The first whole lines, about 1 MiB, in UTF-8; raw bytes for a binary format."""
        if not self.encoding:
            with open(self.path, "rb") as f:
                return f.read(HEAD_BYTES)
        for _, block in self.line_blocks(HEAD_BYTES):
            return block
        return b""

    def _utf8_pieces(self, size: int) -> Iterator[bytes]:
        with open(self.path, "rb") as f:
            f.seek(self.skip_bytes)
            if self.encoding in {"utf-8", "utf-8-sig"}:
                while piece := f.read(size):
                    yield piece
                return
            decoder = codecs.getincrementaldecoder(self.encoding)("strict")
            while piece := f.read(size):
                yield decoder.decode(piece).encode("utf-8")
            yield decoder.decode(b"", final=True).encode("utf-8")

    def line_blocks(self, size: int = BLOCK_BYTES) -> Iterator[tuple[int, bytes]]:
        """(number of its first line from 1, UTF-8 bytes of whole lines); every block but the last ends with a line feed.

        Raises:
            Invalid: `dataset.line-too-long`, `dataset.changed-while-read`.
        """
        rest: list[bytes] = []
        waiting = 0
        line = 1
        for piece in self._utf8_pieces(size):
            cut = piece.rfind(b"\n") + 1
            if cut:
                block = b"".join([*rest, piece[:cut]])
                yield line, block
                line += block.count(b"\n")
                rest, waiting = [piece[cut:]], len(piece) - cut
            else:
                rest.append(piece)
                waiting += len(piece)
                if waiting > LINE_MAX_BYTES:
                    raise Invalid("dataset.line-too-long", file=self.name, line=line, max_bytes=LINE_MAX_BYTES)
        self.check_unchanged()
        if waiting:
            yield line, b"".join(rest)

    def check_unchanged(self) -> None:
        """Raises Invalid: `dataset.changed-while-read` when somebody wrote to the file since it was opened."""
        now = self.path.stat()
        if (now.st_size, now.st_mtime_ns) != (self.size_bytes, self.changed_ns):
            raise Invalid("dataset.changed-while-read", file=self.name)


def open_source(path: Path) -> Source:
    """Read ``path`` once from end to end and say what it is.

    Raises:
        Invalid: `dataset.file-missing`, `dataset.not-a-file`, `dataset.file-unreadable`, `dataset.file-empty`, `dataset.undecodable`,
            `dataset.encoding-unknown`.

    Cost: one pass, about 1 GB/s for UTF-8.
    """
    if not path.exists():
        raise Invalid("dataset.file-missing", file=str(path))
    if not path.is_file():
        raise Invalid("dataset.not-a-file", file=str(path))
    try:
        stat = path.stat()
        with open(path, "rb") as f:
            head = f.read(64 << 10)
    except OSError as e:
        raise Invalid("dataset.file-unreadable", file=str(path), reason=e.strerror or str(e)) from e
    if not head:
        raise Invalid("dataset.file-empty", file=path.name)
    encoding = "" if head.startswith(_MAGIC) else _first_guess(head, stat.st_size)
    sha256, bad_at, newlines = _pass(path, encoding)
    if encoding == "utf-8" and bad_at is not None:
        encoding = _second_guess(path, bad_at)
        sha256, bad_at, newlines = _pass(path, encoding)
    if encoding and bad_at is not None:
        _undecodable(path, encoding, bad_at)
    skip = next((len(bom) for bom, name in _BOMS if name == encoding and head.startswith(bom)), 0)
    if encoding and stat.st_size == skip:
        raise Invalid("dataset.file-empty", file=path.name)
    return Source(path, stat.st_size, sha256, encoding, skip, newlines, stat.st_mtime_ns)


def _first_guess(head: bytes, size_bytes: int) -> str:
    for bom, name in _BOMS:
        if head.startswith(bom):
            return name
    nulls = head.count(0)
    if nulls and size_bytes % 2 == 0:
        even, odd = head[::2].count(0), head[1::2].count(0)
        # a line feed or an ASCII letter in UTF-16 has its zero byte always on the same side
        if max(even, odd) > 0.99 * nulls and max(even, odd) * 1000 > len(head):
            name = "utf-16-le" if odd > even else "utf-16-be"
            text = head[: len(head) // 2 * 2].decode(name, errors="replace")
            if _plausible(text) or text.isascii():
                return name
    controls = sum(head.count(c) for c in (*range(1, 9), *range(14, 27), 28, 29, 30, 31))
    return "" if nulls + controls > 0.1 * len(head) and (nulls or not _begins_as_utf8(head)) else "utf-8"


def _begins_as_utf8(head: bytes) -> bool:
    """Whether ``head`` is UTF-8, a character cut off at its end aside: many control characters alone do not make a text binary."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def _pass(path: Path, encoding: str) -> tuple[str, int | None, int]:
    """(SHA-256, offset of the first undecodable byte or None, line feeds) of the whole file."""
    digest = hashlib.sha256()
    decoder = codecs.getincrementaldecoder("utf-8" if encoding == "utf-8-sig" else encoding)("strict") if encoding else None
    bad_at: int | None = None
    offset = newlines = 0
    with open(path, "rb") as f:
        while piece := f.read(1 << 20):
            digest.update(piece)
            newlines += piece.count(b"\n")
            if decoder is not None and bad_at is None:
                held = len(decoder.getstate()[0])
                try:
                    decoder.decode(piece)
                except UnicodeDecodeError as e:
                    bad_at = offset - held + e.start
            offset += len(piece)
    if decoder is not None and bad_at is None:
        held = len(decoder.getstate()[0])
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as e:
            bad_at = offset - held + e.start
    return digest.hexdigest(), bad_at, newlines


def _second_guess(path: Path, bad_at: int) -> str:
    """What a file that is not strict UTF-8 is: damaged UTF-8, GB18030, or nothing we can name."""
    start = max(0, bad_at - 4096)
    with open(path, "rb") as f:
        f.seek(start)
        near = f.read(128 << 10)
    lenient = near.decode("utf-8", errors="replace")
    good = sum(1 for c in lenient if ord(c) > 0x7F and c != "�")
    if good > lenient.count("�"):  # GB18030 read as UTF-8 breaks at every second character
        _undecodable(path, "utf-8", bad_at)
    cut = near.find(b"\n") + 1 if start else 0
    if not _plausible(near[cut:].decode("gb18030", errors="replace")):
        line, column = _place(path, bad_at, "utf-8")
        raise Invalid("dataset.encoding-unknown", file=path.name, line=line, byte_in_line=column, byte=bad_at)
    return "gb18030"


def _plausible(text: str) -> bool:
    """Whether the characters beyond ASCII are mostly everyday Chinese, as they are when the encoding was the right one."""
    counts = Counter(c for c in text if ord(c) > 0x7F)
    total = sum(counts.values())
    everyday = 0
    for char, n in counts.items():
        code = char.encode("gb2312", errors="ignore")
        everyday += n if code and (code[0] <= 0xA3 or 0xB0 <= code[0] <= 0xD7) else 0
    return total > 0 and everyday >= 0.6 * total


def _place(path: Path, byte: int, encoding: str) -> tuple[int, int]:
    """(line from 1, byte in that line from 0) of the byte at offset ``byte``."""
    feed = {"utf-16-le": b"\n\0", "utf-16-be": b"\0\n"}.get(encoding, b"\n")
    line, last, seen = 1, 0, 0
    with open(path, "rb") as f:
        while seen < byte and (piece := f.read(min(1 << 20, byte - seen))):
            line += piece.count(feed)
            at = piece.rfind(feed)
            last = seen + at + len(feed) if at >= 0 else last
            seen += len(piece)
    return line, byte - last


def _undecodable(path: Path, encoding: str, byte: int) -> None:
    line, column = _place(path, byte, encoding)
    raise Invalid("dataset.undecodable", file=path.name, encoding=encoding.removesuffix("-sig"), line=line, byte_in_line=column, byte=byte)
