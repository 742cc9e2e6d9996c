"""What the machine has on which replicas run, what that costs, and what replicas take of it."""

from __future__ import annotations

import math
import os
import sys
from contextlib import suppress

from wenfang.core.ports import Runtime
from wenfang.core.settings import Settings
from wenfang.serve.affording import Machine

from .replicas import replica_name

__all__ = ["machine_of", "memory_of"]


def machine_of(settings: Settings) -> Machine:
    """What this process may use, and what it costs by the settings; of a cluster, which may grow, only the cost is known."""
    import psutil

    price = settings.price
    if settings.runtime.address != "local:":
        return Machine(math.inf, sys.maxsize, price.core_hour, price.gigabyte_hour)
    return Machine(len(os.sched_getaffinity(0)), psutil.virtual_memory().total, price.core_hour, price.gigabyte_hour)


def memory_of(runtime: Runtime, model_version: str) -> int:
    """Bytes that one running replica of a model version takes here, pages shared with others counted in part; the largest, 0 without any."""
    import psutil

    found = 0
    for name, process in runtime.processes().items():
        if name.startswith(replica_name(model_version, 0)[:-1]) and process.get("pid") and not process.get("node"):
            with suppress(psutil.Error):  # it has just ended
                found = max(found, int(psutil.Process(process["pid"]).memory_full_info().pss))
    return found
