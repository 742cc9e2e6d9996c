"""What changes for callers when one interface takes the place of another: what breaks those who keep to the old one, and what is merely new.

A question that was right must stay right, an answer must stay as it was promised. Knows nothing of documents, records or doors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .interface import ByName, Interface, Kind, Many, Scalar, Shape

__all__ = ["Changes", "Sentence", "changes_between"]

Sentence = tuple[str, dict[str, Any]]
"""Key of the catalogue, and what its sentence names."""
NAMED_MAX = 20
"""Labels that a sentence names."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What callers meet."""

    breaking: list[Sentence] = field(default_factory=list[Sentence])
    added: list[Sentence] = field(default_factory=list[Sentence])


def changes_between(old: Interface, new: Interface, old_labels: Sequence[str], new_labels: Sequence[str]) -> Changes:
    """Compare the interfaces of two model versions.

    Args:
        old: as it is answered now.
        new: what shall take its place.
        old_labels: all of them; an interface lists only so many.
        new_labels: all of the new version.

    Cost: as many steps as there are fields and labels.
    """
    changes = Changes()
    if old.task != new.task:
        changes.breaking.append(("interface.task-changed", {"old": old.task, "new": new.task}))
        return changes
    walk = _Walk(changes, asked=True)
    walk.shapes(old.question, new.question, "inputs[]")
    walk.shapes(old.parameters, new.parameters, "parameters")
    _Walk(changes, asked=False).shapes(old.answer, new.answer, "outputs[]")
    _labels(changes, old_labels, new_labels)
    return changes


def _labels(changes: Changes, old: Sequence[str], new: Sequence[str]) -> None:
    """A label that is gone is waited for in vain; one that is new comes through to those who do not know it."""
    if bool(old) != bool(new):  # the field that carries them comes or goes with them
        return
    kept, present = set(new), set(old)
    if gone := [label for label in old if label not in kept]:
        changes.breaking.append(("interface.labels-gone", _named(gone)))
    if more := [label for label in new if label not in present]:
        changes.added.append(("interface.labels-new", _named(more)))
    common = [label for label in old if label in kept]
    if common != [label for label in new if label in present] or (more and list(new[: len(old)]) != list(old)):
        changes.added.append(("interface.labels-moved", {}))


def _named(labels: Sequence[str]) -> dict[str, Any]:
    return {"n": len(labels), "labels": ", ".join(labels[:NAMED_MAX]) + (", …" if len(labels) > NAMED_MAX else "")}


class _Walk:
    """Over two shapes at once.

    Args:
        changes: what is found goes here.
        asked: it is about what callers send: less room there breaks; in answers more room does.
    """

    def __init__(self, changes: Changes, *, asked: bool) -> None:
        self.changes = changes
        self.asked = asked

    def shapes(self, old: Shape, new: Shape, where: str) -> None:
        """Compare fields by name."""
        before, after = {p.name: p for p in old.parts}, {p.name: p for p in new.parts}
        for name, part in before.items():
            path = f"{where}.{name}"
            if name not in after:
                self.changes.breaking.append(("interface.field-gone", {"field": path}))
                continue
            if part.number != after[name].number:
                self.changes.breaking.append(("interface.number-changed", {"field": path, "old": part.number, "new": after[name].number}))
            if part.required != after[name].required:
                self._required(path, wanted=after[name].required)
            self.kinds(part.kind, after[name].kind, path)
        for name, part in after.items():
            if name not in before:
                must = self.asked and part.required
                (self.changes.breaking if must else self.changes.added).append(("interface.field-wanted" if must else "interface.field-new", {"field": f"{where}.{name}"}))

    def _required(self, path: str, *, wanted: bool) -> None:
        if wanted == self.asked:
            self.changes.breaking.append(("interface.field-wanted" if wanted else "interface.field-unsure", {"field": path}))

    def kinds(self, old: Kind, new: Kind, path: str) -> None:
        """Compare what one field holds."""
        match old, new:
            case Shape(), Shape():
                self.shapes(old, new, path)
            case Many(), Many():
                self._bounds(path, (old.least, old.most), (new.least, new.most))
                self.kinds(old.of, new.of, f"{path}[]")
            case ByName(), ByName():
                self.kinds(old.of, new.of, f"{path}{{}}")
            case Scalar(), Scalar() if old.kind == new.kind:
                self._bounds(path, (old.least, old.most), (new.least, new.most))
                self._bounds(path, (old.above, None), (new.above, None))
                self._bounds(path, (None, old.length_max), (None, new.length_max))
            case _:
                self.changes.breaking.append(("interface.kind-changed", {"field": path, "old": _word(old), "new": _word(new)}))

    def _bounds(self, path: str, old: tuple[float | None, float | None], new: tuple[float | None, float | None]) -> None:
        narrower = _beyond(new[0], old[0], 1) or _beyond(new[1], old[1], -1)
        wider = _beyond(old[0], new[0], 1) or _beyond(old[1], new[1], -1)
        told = {"field": path, "old": _shown(old), "new": _shown(new)}
        if narrower and self.asked:
            self.changes.breaking.append(("interface.range-narrower", told))
        elif wider and not self.asked:
            self.changes.breaking.append(("interface.range-wider", told))
        elif narrower or wider:
            self.changes.added.append(("interface.range-changed", told))


def _beyond(bound: float | None, other: float | None, sign: int) -> bool:
    """Whether ``bound`` leaves less room than ``other`` on its side."""
    return bound is not None and (other is None or (bound - other) * sign > 0)


def _shown(bounds: tuple[float | None, float | None]) -> str:
    least, most = (("" if b is None else f"{b:.16g}") for b in bounds)
    return f"{least}…{most}"


def _word(kind: Kind) -> str:
    return kind.kind if isinstance(kind, Scalar) else type(kind).__name__.lower()
