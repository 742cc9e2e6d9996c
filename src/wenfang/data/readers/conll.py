"""CoNLL columns: a token and its tag on each line, a blank line between sentences; BIO, BIOES, BMES, BILOU or IO."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from wenfang.core.errors import Invalid
from wenfang.data.columns import Batch, Fields, Look, RawSpan, frame_of, int64
from wenfang.data.tagging import TAG, decode, join_tokens, loose_begin, parse_tag, per_character

from .base import ROWS, SAMPLE_ROWS, Reader

__all__ = ["Conll"]

Sentence = tuple[int, list[str], list[str]]
"""(line of its first token, tokens, tags)."""
SENTENCE_MAX = 1_000_000
"""Tokens; a file without blank lines is not a CoNLL file."""


class Conll(Reader):
    """Reads CoNLL files. Tokens are joined without a space if most are single characters, else as words."""

    suffixes = (".conll", ".bmes", ".bio", ".bioes", ".iob", ".iob2", ".ner", ".conllu")
    lossless = False  # a text of blanks, or one without a token, has no form here

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # pyright: ignore[reportArgumentType]
        self._characters = True
        self._loose = False
        self._bare = True
        """Tags may be labels without a prefix."""

    @classmethod
    def sniff(cls, head: bytes) -> float:
        """Nearly every line of the first 400 is a short token and a tag."""
        lines = [line.rstrip(b"\r") for line in head[: 64 << 10].split(b"\n")[:400]]
        full = [line.decode("utf-8", errors="replace") for line in lines if line.strip(b" \t") and not line.startswith(b"-DOCSTART-")]
        good = sum(TAG.fullmatch(parts[1]) is not None for line in full if (parts := _split(line)) is not None)
        columns = sum(_split(line) is not None for line in full)
        return 0.0 if not full else 0.97 if good >= 0.9 * len(full) else 0.55 if good >= 0.5 * len(full) else 0.05 if columns >= 0.9 * len(full) else 0.0

    def look(self) -> Look:
        """The joining and the scheme, decided on the first thousand sentences."""
        sentences = list(islice(self._sentences(), SAMPLE_ROWS))
        tokens = [t for _, words, _ in sentences for t in words]
        tags = [t for _, _, row in sentences for t in (*row, "O")]
        self._characters = per_character(tokens)
        self._loose = loose_begin(tags)
        prefixes = {t[0] for t in tags if t != "O" and len(t) > 1 and t[1] in "-_"}
        self._bare = not prefixes
        scheme = (
            "BMES"
            if "M" in prefixes
            else "BILOU"
            if prefixes & {"L", "U"}
            else "BIOES"
            if prefixes & {"E", "S"}
            else "IO"
            if "B" not in prefixes
            else "IOB1"
            if self._loose
            else "BIO"
        )
        texts = ["".join(words) for _, words, _ in sentences]
        return Look(["text", "spans"], {"text": texts}, spans="spans", said={"tags": scheme, "joined": "characters" if self._characters else "words"})

    def read(self, fields: Fields) -> Iterator[Batch]:
        """All sentences; a row's line is that of its first token."""
        del fields  # there is nothing to choose from
        sentences = self._sentences()
        while chunk := list(islice(sentences, ROWS)):
            texts: list[str] = []
            rows: list[list[RawSpan]] = []
            repaired = 0
            for _, tokens, tags in chunk:
                text, starts, ends = join_tokens(tokens, characters=self._characters)
                spans, repairs = decode(tags, starts, ends, loose=self._loose)
                texts.append(text)
                rows.append(spans)
                repaired += repairs
            yield Batch(frame_of({"text": texts, "spans": rows}), int64([line for line, _, _ in chunk]), repaired=repaired)

    def _sentences(self) -> Iterator[Sentence]:
        begun, tokens, tags = 0, list[str](), list[str]()
        for first, block in self.source.line_blocks():
            for i, line in enumerate(block.decode("utf-8").removesuffix("\n").split("\n")):
                row = line.removesuffix("\r")
                if not row.strip(" \t") or row.startswith("-DOCSTART-"):
                    if tokens:
                        yield begun, tokens, tags
                        tokens, tags = [], []
                    continue
                parts = _split(row)
                if parts is None or parse_tag(parts[1]) is None or not (self._bare or TAG.fullmatch(parts[1])):
                    raise Invalid("dataset.conll-line", file=self.source.name, line=first + i)
                if not tokens:
                    begun = first + i
                elif len(tokens) >= SENTENCE_MAX:
                    raise Invalid("dataset.malformed", file=self.source.name, line=begun, reason=f"no blank line within {SENTENCE_MAX} tokens")
                tokens.append(parts[0])
                tags.append(parts[1])
        if tokens:
            yield begun, tokens, tags


def _split(line: str) -> tuple[str, str] | None:
    """(token, tag) of a line: first and last column; the token may itself be a blank."""
    row = line.rstrip(" \t")
    at = max(row.rfind(" "), row.rfind("\t"))
    if at <= 0:
        return None
    token = row.split("\t", 1)[0] if "\t" in row else row[0] if row[0] == " " else row.split(" ", 1)[0]
    return (token, row[at + 1 :]) if token else None
