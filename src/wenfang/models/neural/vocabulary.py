"""The part of a pretrained vocabulary that a body of texts needs: token numbers to keep, and a tokeniser that knows no others.

What the texts are cut into stays the same for every text whose pieces are all kept: greedy and likeliest cuts choose among fewer pieces, and of
pair merges every way to a kept piece is kept. Knows nothing of networks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from wenfang.core.errors import Invalid

__all__ = ["Numbers", "Vocabulary", "needed", "pruned_tokenizer"]

Vocabulary = Literal["whole", "characters", "seen"]
"""``characters``: every single character stays, longer pieces where training texts have them; ``seen``: of characters beyond ASCII, too, those only."""
Numbers = npt.NDArray[np.intp]
"""Old numbers of the kept tokens, ascending: place i is the new number i."""
SPECIAL_MAX = 16
"""A padding token below this number keeps it, with whatever stands before it: some networks count positions from there."""
BROKEN, BLANK = "\ufffd", "\u2581"
KINDS = frozenset({"WordPiece", "WordLevel", "BPE", "Unigram"})


def needed(source: bytes, seen: Iterable[int], *, pad: int, characters: bool, path: str) -> Numbers:
    """Which tokens stay: the special ones, those seen, single characters, and what longer ones are made of.

    Args:
        source: ``tokenizer.json``.
        seen: numbers that occur in the texts.
        pad: number of the padding token.
        characters: keep every single character of the vocabulary; else ASCII and those seen.
        path: for the error.

    Raises:
        Invalid: `neural.vocabulary-fixed`, a kind of tokeniser that cannot be cut.
    """
    document: dict[str, Any] = json.loads(source)
    model: dict[str, Any] = document["model"]
    if model.get("type") not in KINDS:
        raise Invalid("neural.vocabulary-fixed", path=path, kind=str(model.get("type")))
    numbers = _numbers(model)
    tokens: list[Any] = document.get("added_tokens") or []
    added = {int(t["id"]) for t in tokens}
    kept: set[int] = set(seen) | added | {pad} | (set(range(pad + 1)) if pad < SPECIAL_MAX else set())
    if model.get("unk_token") in numbers:
        kept.add(numbers[model["unk_token"]])
    if isinstance(model.get("unk_id"), int):
        kept.add(model["unk_id"])
    spelled = _speller(document)
    kept |= {number for piece, number in numbers.items() if _lone(spelled(piece), characters=characters) or (len(piece) == 6 and piece.startswith("<0x"))}
    if model["type"] == "BPE":
        kept = _with_parts(kept, numbers, model["merges"])
    return np.array(sorted(kept), np.intp)


def pruned_tokenizer(source: bytes, kept: Numbers) -> bytes:
    """``tokenizer.json`` with only the tokens ``kept``, numbered by their places."""
    document = json.loads(source)
    new: dict[int, int] = {old: i for i, old in enumerate(kept.tolist())}
    model = document["model"]
    if isinstance(model["vocab"], list):
        model["vocab"] = [entry for number, entry in enumerate(model["vocab"]) if number in new]
        if isinstance(model.get("unk_id"), int):
            model["unk_id"] = new[model["unk_id"]]
    else:
        model["vocab"] = {piece: new[number] for piece, number in model["vocab"].items() if number in new}
    if model["type"] == "BPE":
        vocabulary = model["vocab"]
        model["merges"] = [m for m in model["merges"] if all(part in vocabulary for part in (*_pair(m), "".join(_joined(m, model))))]
    for token in document.get("added_tokens") or ():
        token["id"] = new[token["id"]]
    document["padding"] = document["truncation"] = None
    _renumber(document.get("post_processor"), new.__getitem__)
    return json.dumps(document, ensure_ascii=True).encode()


def _numbers(model: Mapping[str, Any]) -> dict[str, int]:
    vocabulary: Any = model["vocab"]
    return {str(entry[0]): i for i, entry in enumerate(vocabulary)} if isinstance(model["vocab"], list) else dict(vocabulary)


def _lone(text: str, *, characters: bool) -> bool:
    """Whether a piece is one character that stays in any case; a part of one, of byte-level tokenisers, is."""
    return len(text) == 1 and (characters or text.isascii() or text in {BROKEN, BLANK})


def _speller(document: Mapping[str, Any]) -> Callable[[str], str]:
    """What a piece stands for, without the marks of a word's beginning or going on."""
    head = document["model"].get("continuing_subword_prefix") or ""
    if '"ByteLevel"' not in json.dumps([document.get("pre_tokenizer"), document.get("normalizer")]):
        return lambda piece: piece.removeprefix(head) if len(piece) <= 1 else piece.removeprefix(head).removeprefix(BLANK) or piece
    from tokenizers import decoders, pre_tokenizers

    decode, symbols = decoders.ByteLevel().decode, frozenset(pre_tokenizers.ByteLevel.alphabet())
    return lambda piece: BROKEN if piece in symbols else decode([piece]).removeprefix(" ")


def _pair(merge: str | list[str]) -> tuple[str, str]:
    """A merge is written as a pair, or in one string with a blank."""
    first, second = merge.split(" ", 1) if isinstance(merge, str) else merge
    return first, second


def _joined(merge: str | list[str], model: Mapping[str, Any]) -> tuple[str, str]:
    first, second = _pair(merge)
    return first, second.removeprefix(model.get("continuing_subword_prefix") or "")


def _with_parts(kept: set[int], numbers: Mapping[str, int], merges: Iterable[str | list[str]]) -> set[int]:
    """The tokens with all that they may be merged from."""
    parts: dict[str, list[tuple[str, str]]] = {}
    for merge in merges:
        first, second = _pair(merge)
        parts.setdefault(first + second, []).append((first, second))
    names = {number: piece for piece, number in numbers.items()}
    waiting, found = [names[n] for n in kept if n in names], set(kept)
    while waiting:
        for piece in (p for pair in parts.get(waiting.pop(), ()) for p in pair):
            if numbers[piece] not in found:
                found.add(numbers[piece])
                waiting.append(piece)
    return found


def _renumber(processor: Any, new: Callable[[int], int]) -> None:
    """Special tokens of a post-processor, in place."""
    if processor is None:
        return
    parts: list[Any] = processor.get("processors") or []
    for one in parts:
        _renumber(one, new)
    for side in ("sep", "cls"):
        if side in processor:
            processor[side] = [processor[side][0], new(int(processor[side][1]))]
    special: dict[str, Any] = processor.get("special_tokens") or {}
    for token in special.values():
        ids: list[int] = token["ids"]
        token["ids"] = [new(i) for i in ids]
