"""How many replicas a machine and a budget have room for, and whether a scaling asks for what there is not. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

from wenfang.core.errors import Invalid
from wenfang.core.scaling import Scaling

from .windows import check_windows

__all__ = ["Machine", "affordable", "check_scaling"]

GIGABYTE = 1e9


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is, and what it costs."""

    cores: float
    memory_bytes: int
    core_hour: float = 0.0
    gigabyte_hour: float = 0.0


def affordable(scaling: Scaling, machine: Machine, memory_bytes: int = 0) -> tuple[int, str]:
    """How many replicas the budget pays for, and which part of it is short first (empty: none is).

    Args:
        scaling: with the budget.
        machine: with the prices.
        memory_bytes: one replica's, as measured; 0: not known.

    >>> scaling = Scaling.model_validate({"min": 1, "max": 8, "budget": {"cores": 3, "money_per_hour": 1.0}})
    >>> affordable(scaling, Machine(8, 0, core_hour=0.25)), affordable(scaling, Machine(8, 0, core_hour=0.5))
    ((3, 'cores'), (2, 'money_per_hour'))
    """
    budget, resources = scaling.budget, scaling.resources
    memory = max(resources.memory_bytes, memory_bytes)
    price = resources.cores * machine.core_hour + memory / GIGABYTE * machine.gigabyte_hour
    shares = (("cores", budget.cores, resources.cores), ("memory_bytes", budget.memory_bytes, memory), ("money_per_hour", budget.money_per_hour, price))
    most, short = scaling.max, ""
    for window in scaling.windows:
        most = max(most, window.max)
    for name, have, each in shares:
        if have is not None and each > 0 and (n := int(have / each + 1e-9)) < most:
            most, short = n, name
    return most, short


def check_scaling(scaling: Scaling, machine: Machine) -> None:
    """Return if the machine has what ``scaling`` asks for and its parts agree.

    Raises:
        Invalid: `scaling.min-over-max`, `scaling.machine-cores`, `scaling.machine-memory`, `scaling.budget-below-min`, `scaling.never-zero`, and what ``check_windows`` raises.
    """
    if scaling.min > scaling.max:
        raise Invalid("scaling.min-over-max", min=scaling.min, max=scaling.max, where="min, max")
    check_windows(scaling)
    resources = scaling.resources
    bounds = [("min, max", scaling.min, scaling.max), *((w.name, w.min, w.max) for w in scaling.windows)]
    pays, short = affordable(scaling, machine)
    for where, low, high in bounds:
        if high * resources.cores > machine.cores + 1e-9:
            raise Invalid("scaling.machine-cores", where=where, replicas=high, cores=resources.cores, have=machine.cores, fit=int(machine.cores / resources.cores + 1e-9))
        if high * resources.memory_bytes > machine.memory_bytes:
            fit = machine.memory_bytes // resources.memory_bytes
            raise Invalid("scaling.machine-memory", where=where, replicas=high, memory_bytes=resources.memory_bytes, have=machine.memory_bytes, fit=fit)
        if pays < max(low, 1):
            raise Invalid("scaling.budget-below-min", where=where, min=low, pays=pays, part=f"budget.{short}")
    if all(low for _, low, _ in bounds) and (given := sorted({"idle_s", "cold_start_s"} & scaling.model_fields_set)):
        raise Invalid("scaling.never-zero", field=given[0], min=scaling.min)
