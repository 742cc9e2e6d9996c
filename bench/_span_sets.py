"""The tagging sets under ``WENFANG_TEST_DATA`` as examples: train, valid (to choose on), test (to report)."""

import json
import os
from pathlib import Path

from wenfang.core.examples import Examples, Span

DATA = Path(os.environ.get("WENFANG_TEST_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))


def _blocks(path):
    """Token and tag columns of each sentence."""
    for block in path.read_text(encoding="utf-8").strip().split("\n\n"):
        rows = [line.rsplit(maxsplit=1) for line in block.splitlines() if line.strip()]
        rows = [r for r in rows if len(r) == 2]
        yield [r[0] for r in rows], [r[1] for r in rows]


def _spans(tags, starts, ends):
    """Spans of BIO, BMES or BIOES tags; the files read here have no illegal sequences worth mending."""
    found, begun = [], None
    for i, tag in enumerate([*tags, "O"]):
        goes_on = begun is not None and tag[0] in "IME" and tag[2:] == tags[begun][2:]
        if begun is not None and not goes_on:
            found.append(Span(starts[begun], ends[i - 1], tags[begun][2:]))
            begun = None
        if tag != "O" and not goes_on:
            begun = i
    return tuple(found)


def columns(path):
    """A file with one character and its tag in each line."""
    texts, spans = [], []
    for tokens, tags in _blocks(path):
        ends = [sum(map(len, tokens[: i + 1])) for i in range(len(tokens))]
        texts.append("".join(tokens))
        spans.append(_spans(tags, [e - len(t) for t, e in zip(tokens, ends, strict=True)], ends))
    return Examples("tagging", texts, spans=spans)


def _lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def cluener(path):
    """JSON lines with inclusive ends."""
    rows = _lines(path)
    spans = [tuple(sorted((Span(a, b + 1, label) for label, names in r["label"].items() for at in names.values() for a, b in at), key=lambda s: s.start)) for r in rows]
    return Examples("tagging", [r["text"] for r in rows], spans=[_apart(s) for s in spans])


def titles(path):
    """JSON lines with an entity list."""
    rows = _lines(path)
    spans = [tuple(sorted((Span(e["entity_index"]["begin"], e["entity_index"]["end"], e["entity_type"]) for e in r["entity_list"]), key=lambda s: s.start)) for r in rows]
    return Examples("tagging", [r["text"] for r in rows], spans=[_apart(s) for s in spans])


def _apart(spans):
    kept, free = [], 0
    for s in spans:
        if s.start >= free:
            kept.append(s)
            free = s.end
    return tuple(kept)


def snips(folder):
    """Words joined by single spaces."""
    texts, spans = [], []
    for words, tags in zip((folder / "seq.in").read_text().splitlines(), (folder / "seq.out").read_text().splitlines(), strict=True):
        tokens = words.split()
        ends = [sum(map(len, tokens[: i + 1])) + i for i in range(len(tokens))]
        texts.append(" ".join(tokens))
        spans.append(_spans(tags.split(), [e - len(t) for t, e in zip(tokens, ends, strict=True)], ends))
    return Examples("tagging", texts, spans=spans)


def _resume():
    return tuple(columns(DATA / "resume_ner" / f"{part}.char.bmes") for part in ("train", "dev", "test"))


def _cluener():
    """A tenth of train to choose on, every tenth example; dev.json to report."""
    whole = cluener(DATA / "cluener2020" / "train.json")
    part = set(range(0, len(whole), 10))
    return whole.take([i for i in range(len(whole)) if i not in part]), whole.take(sorted(part)), cluener(DATA / "cluener2020" / "dev.json")


def _snips():
    return tuple(snips(DATA / "snips" / part) for part in ("train", "valid", "test"))


def _people():
    """The set's test file to learn from, a tenth of it to choose on; its dev file to report."""
    whole = columns(DATA / "peoples_daily_ner" / "example.test")
    part = set(range(0, len(whole), 10))
    return whole.take([i for i in range(len(whole)) if i not in part]), whole.take(sorted(part)), columns(DATA / "peoples_daily_ner" / "example.dev")


def _titles():
    return tuple(titles(DATA / "video_music_book_ner" / f"{part}.txt") for part in ("train", "valid", "test"))


SETS = {"resume": _resume, "cluener": _cluener, "snips": _snips, "people": _people, "titles": _titles}
"""Name: train, valid and test."""
