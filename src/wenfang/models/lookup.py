"""The compiled loops that read templates: hashes of channels, rows of hashes, longest terms. Equal to the numpy code beside their callers.

Knows nothing of texts or tags.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .jit import jit

__all__ = ["find", "mark", "speak", "spread"]

U64 = npt.NDArray[np.uint64]
I32 = npt.NDArray[np.int32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


@jit
def _onward(key: np.uint64, value: np.uint64) -> np.uint64:  # pragma: no cover compiled
    """One more value into a hash: ``features.mix`` of the key plus a step."""
    return _mix(key + np.uint64(0x9E3779B97F4A7C15) * (value + np.uint64(1)))


@jit
def _mix(key: np.uint64) -> np.uint64:  # pragma: no cover compiled
    """As in ``features``."""
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))


@jit
def _row(key: np.uint64, keys: U64, first: I32, shift: np.uint64) -> int:  # pragma: no cover compiled
    """The row of a hash in a ``GramIndex``; -1 where it is unknown."""
    bucket = np.int64(key >> shift)
    for i in range(first[bucket], first[bucket + 1]):
        if keys[i] == key:
            return i
    return -1


@jit
def find(channels: U64, which: I64, offsets: I64, keys: U64, first: I32, shift: np.uint64, found: I32) -> None:  # pragma: no cover compiled
    """The row of what some channels read together, at every padded place.

    Shapes and meanings:
        channels: shape (C, P), padded.
        which: channels that are read, shape (m,); ``offsets`` are where.
        keys: known hashes, sorted; ``first`` and ``shift`` as in ``GramIndex``.
        found: filled with rows, shape (P - largest offset,).
    """
    for p in range(len(found)):
        key = np.uint64(0)
        for q in range(len(which)):
            key = _onward(key, np.uint64(channels[which[q], p + offsets[q]]))
        found[p] = _row(key, keys, first, shift) if len(keys) else -1


@jit
def spread(found: I32, at: I64, offset: int, base: int, rows: I32, column: int) -> None:  # pragma: no cover compiled
    """Rows found at padded places into one column of the rows of places, shape (N, K); unknown is 0."""
    for n in range(len(at)):
        row = found[at[n] + offset]
        rows[n, column] = base + row if row >= 0 else 0


@jit
def mark(
    form: U64, starts: I64, longest: int, heads: U64, heads_first: I32, heads_shift: np.uint64, keys: U64, first: I32, shift: np.uint64, kinds: I64, marks: U64
) -> None:  # pragma: no cover compiled
    """What the longest term over each place says; among equally long ones the later part of a term, as ``Lexicon`` has it.

    Shapes and meanings:
        form: shape (N,); ``starts`` are those of the texts.
        longest: places of the longest term.
        heads: hashes of beginnings, an index; ``keys`` of whole terms likewise.
        kinds: of each term.
        marks: filled, shape (N,).
    """
    covered, deep = np.zeros(len(form), np.int32), np.zeros(len(form), np.int32)
    for s in range(len(starts) - 1):
        for p in range(starts[s], starts[s + 1]):
            key = np.uint64(0)
            for m in range(min(longest, starts[s + 1] - p)):
                key = _onward(key, form[p + m])
                if _row(key, heads, heads_first, heads_shift) < 0:
                    break
                term = _row(key, keys, first, shift)
                if term < 0:
                    continue
                for o in range(m + 1):
                    at = p + o
                    if m + 1 > covered[at] or (m + 1 == covered[at] and o >= deep[at]):
                        covered[at], deep[at] = m + 1, o
                        spot = 3 if m == 0 else 0 if o == 0 else 2 if o == m else 1
                        marks[at] = np.uint64(1 + spot + 4 * kinds[term])


@jit
def speak(form: U64, starts: I64, keys: U64, first: I32, shift: np.uint64, table: F64, said: F64, sizes: I64) -> None:  # pragma: no cover compiled
    """What the forms and pairs of each text, each counted once, say of its labels together, as ``Topics`` has it.

    Shapes and meanings:
        form: shape (N,); ``starts`` are those of the texts.
        keys: known forms and pairs, an index.
        table: what each says, shape (V + 1, L).
        said: filled with sums, shape (B, L); ``sizes`` with how many spoke, shape (B,).
    """
    last = np.full(len(keys), -1, np.int64)
    for s in range(len(starts) - 1):
        before = np.uint64(0)
        for p in range(starts[s], starts[s + 1]):
            here = _mix(form[p])
            for pair in range(2):
                if pair and p == starts[s]:
                    continue
                key = _mix(before + np.uint64(0x9E3779B97F4A7C15) * form[p]) if pair else here
                row = _row(key, keys, first, shift)
                if row >= 0 and last[row] != s:
                    last[row] = s
                    sizes[s] += 1
                    for j in range(said.shape[1]):
                        said[s, j] += table[row, j]
            before = here
