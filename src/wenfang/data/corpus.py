"""A corpus of Chinese customer service, made up and seeded: tickets with intents, and tickets with entities.

It has what real data has: a long tail, side remarks, typing errors, emoji, full-width digits, duplicates, wrong labels, empty rows.
Knows its words and how files are written, nothing of readers or models.
"""

from __future__ import annotations

import csv
import io
import random
import re
from collections.abc import Iterator
from pathlib import Path

import orjson

from wenfang.core.durable import write_file

from .corpus_words import CLOSINGS, CONTEXTS, ENTITY_LINES, INTENTS, OPENINGS, SLOTS, TYPOS

__all__ = ["entity_tickets", "tickets", "write_corpus"]

TAIL_EXPONENT = 1.15
"""Intent k of the list is drawn with weight k to the minus this."""
WRONG_LABEL_SHARE = 0.01
SIDE_SHARE = 0.12
"""Of tickets that touch a second matter; their intent is that of the first clause."""
DUPLICATE_SHARE = 0.02
EMPTY_SHARE = 0.001
ENTITIES = {"order": "订单号", "product": "商品", "date": "日期", "person": "人名", "address": "地址"}
EMOJI = ("😡", "🙏", "😭", "👍", "🤔", "❤️", "👨‍👩‍👧", "🆘")
_SLOT = re.compile(r"\{(\w+)\}")
_FULL_WIDTH = str.maketrans("0123456789", "０１２３４５６７８９")
Piece = tuple[str, str | None]
"""(text, slot it fills)."""


def write_corpus(folder: Path, *, rows: int = 6000, seed: int = 7) -> dict[str, Path]:
    """Write ``tickets.csv`` (``text,label``) and ``entities.jsonl`` (``id,text,label`` with spans) into ``folder``.

    Args:
        folder: made if it is not there.
        rows: of the tickets; the entities are a third of them.
        seed: equal seeds give equal bytes.

    Raises:
        Broken: `home.write-failed`.
    """
    files = {"tickets": folder / "tickets.csv", "entities": folder / "entities.jsonl"}
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("text", "label"))
    writer.writerows(tickets(rows, seed))
    write_file(files["tickets"], out.getvalue().encode())
    lines = (orjson.dumps({"id": f"t{i:06d}", "text": text, "label": spans}) + b"\n" for i, (text, spans) in enumerate(entity_tickets(max(1, rows // 3), seed + 1)))
    write_file(files["entities"], lines)
    return files


def tickets(rows: int, seed: int) -> Iterator[tuple[str, str]]:
    """(text, intent) of so many tickets, head to tail mixed."""
    rng = random.Random(seed)
    names = list(INTENTS)
    weights = [(k + 1) ** -TAIL_EXPONENT for k in range(len(names))]
    earlier: list[tuple[str, str]] = []
    for _ in range(rows):
        luck = rng.random()
        if luck < EMPTY_SHARE:
            yield rng.choice(("", " ", "　")), rng.choice(names)
            continue
        if luck < EMPTY_SHARE + DUPLICATE_SHARE and earlier:
            yield rng.choice(earlier)
            continue
        intent = rng.choices(names, weights)[0]
        text = _ticket(intent, rng)
        if rng.random() < WRONG_LABEL_SHARE:
            intent = rng.choice([n for n in names if n != intent])
        earlier.append((text, intent))
        yield text, intent


def entity_tickets(rows: int, seed: int) -> Iterator[tuple[str, list[tuple[int, int, str]]]]:
    """(text, spans) of so many tickets; a span is (start, end, label) in code points."""
    rng = random.Random(seed)
    for _ in range(rows):
        frame = rng.choice(OPENINGS) + rng.choice(ENTITY_LINES) + rng.choice(CLOSINGS)
        text, spans = "", list[tuple[int, int, str]]()
        for piece, slot in _filled(frame, rng):
            said = _noisy(piece, rng) if slot is None else piece.translate(_FULL_WIDTH) if rng.random() < 0.03 else piece
            if slot in ENTITIES:
                spans.append((len(text), len(text) + len(said), ENTITIES[slot]))
            text += said
        yield text, spans


def _ticket(intent: str, rng: random.Random) -> str:
    """One ticket: opening, context, the matter, perhaps a second one, closing."""
    context = rng.choice(CONTEXTS) if rng.random() < 0.35 else ""
    frame = rng.choice(OPENINGS) + context + rng.choice(INTENTS[intent])
    if rng.random() < SIDE_SHARE:
        frame += "，" + rng.choice(INTENTS[rng.choice(list(INTENTS))])
    return _noisy("".join(piece for piece, _ in _filled(frame + rng.choice(CLOSINGS), rng)), rng)


def _filled(frame: str, rng: random.Random) -> Iterator[Piece]:
    """``frame`` in pieces, each ``{slot}`` filled."""
    for i, piece in enumerate(_SLOT.split(frame)):
        if i % 2:
            yield _slot(piece, rng), piece
        elif piece:
            yield piece, None


def _slot(name: str, rng: random.Random) -> str:
    match name:
        case "days":
            return rng.choice(("两天", "三天", "一周", "半个月", f"{rng.randint(2, 30)}天", f"快{rng.randint(2, 9)}天"))
        case "amount":
            return rng.choice((str(rng.randint(9, 2999)), f"{rng.randint(9, 999)}.{rng.randint(0, 99):02d}"))
        case "order":
            return rng.choice(("", "", "DD", "SO-", "E")) + str(rng.randrange(10**9, 10**13))
        case "date":
            month, day = rng.randint(1, 12), rng.randint(1, 28)
            return rng.choice((f"{month}月{day}日", f"{month}月{day}号", f"{month}.{day}", f"2024-{month:02d}-{day:02d}", "昨天", "前天", "上周五", "上个月", "双十一"))
        case "person":
            return rng.choice(SLOTS["surname"]) + rng.choice((*SLOTS["given"], "女士", "先生"))
        case "address":
            place = rng.choice(SLOTS["city"]) + rng.choice(("", "市")) + rng.choice(SLOTS["district"]) + rng.choice(SLOTS["road"]) + f"{rng.randint(1, 999)}号"
            return place + rng.choice(("", f"{rng.randint(1, 30)}栋{rng.randint(1, 33)}0{rng.randint(1, 4)}"))
        case _:
            return rng.choice(SLOTS[name])


def _noisy(text: str, rng: random.Random) -> str:
    """Typed in a hurry: wrong, lost and doubled characters, emoji, full-width digits."""
    luck = rng.random()
    if luck < 0.25:
        right = rng.choice(list(TYPOS))
        text = text.replace(right, TYPOS[right])
    elif luck < 0.28 and len(text) > 4:
        at = rng.randrange(len(text))
        text = text[:at] + text[at + 1 :]
    elif luck < 0.30 and text:
        at = rng.randrange(len(text))
        text = text[:at] + text[at] + text[at:]
    elif luck < 0.33:
        text = text.translate(_FULL_WIDTH)
    if rng.random() < 0.05:
        text += rng.choice(EMOJI) * rng.randint(1, 3)
    return text
