"""What can be done: one function per operation, and the one place where everything is wired."""

from __future__ import annotations

import importlib
import pkgutil

from wenfang.core.operation import OPERATIONS, Operation

__all__ = ["operations"]

NOT_OPERATIONS = {"app", "autoscaler", "doctor", "manifests", "names", "queue", "serving", "teaching", "wiring", "work"}


def operations() -> dict[str, Operation]:
    """The table of all operations: the studio scans its own folder, there is no list."""
    for module in pkgutil.iter_modules(__path__):
        if module.name not in NOT_OPERATIONS:
            importlib.import_module(f"{__name__}.{module.name}")
    return OPERATIONS
