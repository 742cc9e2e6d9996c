"""One registry for every kind of plug-in: a file in a folder, or an entry point.

A kind (``"family"``, ``"reader"`` ...) is a package. Each public module in it defines one plug-in class, and the module's name
*is* the plug-in's name: ``wenfang/models/families/crf.py`` is ``crf``. Third parties add a class through the entry-point group
``wenfang.<kind>``. Names are listed without importing anything heavy; a plug-in is imported when first asked for.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from .errors import Broken, Conflict, NotFound, Unsupported

__all__ = ["Registry", "nearest"]

T = TypeVar("T")


def nearest(name: str, known: list[str]) -> str:
    """The known names most like ``name``, for a "did you mean"; all of them if none is near."""
    return ", ".join(difflib.get_close_matches(name, known, n=3) or sorted(known)[:20])


class Registry(Generic[T]):
    """The plug-ins of one kind, found by name.

    Args:
        kind: the singular noun, used in messages and as the entry-point group ``wenfang.<kind>``.
        package: dotted name of the folder.
        base: the class every plug-in derives from.
    """

    def __init__(self, kind: str, *, package: str, base: type[T]) -> None:
        self.kind = kind
        self.package = package
        self.base = base
        self._loaded: dict[str, type[T]] = {}

    def names(self) -> list[str]:
        """Every known name, sorted. Imports the package itself, never a plug-in."""
        folder = importlib.import_module(self.package).__path__
        own = {m.name for m in pkgutil.iter_modules(folder) if not m.name.startswith("_") and m.name != "base"}
        outside = {e.name for e in entry_points(group=f"wenfang.{self.kind}")}
        if both := own & outside:
            raise Conflict("plugin.name-taken", kind=self.kind, name=sorted(both))
        return sorted(own | outside)

    def get(self, name: str) -> type[T]:
        """The plug-in class called ``name``.

        Raises:
            NotFound: `plugin.unknown`, with the nearest names.
            Unsupported: `plugin.needs-package`, with the pip command.
        """
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def _load(self, name: str) -> type[T]:
        known = self.names()
        if name not in known:
            raise NotFound("plugin.unknown", kind=self.kind, name=name, near=nearest(name, known))
        outside = {e.name: e for e in entry_points(group=f"wenfang.{self.kind}")}
        try:
            found = outside[name].load() if name in outside else self._one_class(f"{self.package}.{name}")
        except ModuleNotFoundError as e:
            if (e.name or "wenfang").split(".")[0] == "wenfang":
                raise
            raise Unsupported("plugin.needs-package", kind=self.kind, name=name, package=e.name) from e
        setattr(found, "name", name)  # noqa: B010 the base class of a kind declares it, T cannot say so
        return found

    def _one_class(self, module_name: str) -> type[T]:
        module = importlib.import_module(module_name)
        found = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, self.base) and v.__module__ == module_name and not v.__name__.startswith("_")]
        if len(found) != 1:
            raise Broken("plugin.not-one", module=module_name, n=len(found), base=self.base.__name__)
        return found[0]
