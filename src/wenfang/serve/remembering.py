"""A cost curve is measured once for a model version, machine and start of the machine: replicas that come later read it, so that they answer sooner."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from wenfang.core.durable import write_file
from wenfang.core.errors import WenfangError

from .costs import CostCurve, measure, sample_text

__all__ = ["measured_once"]

log = logging.getLogger("wenfang.replica")


class _Kept(msgspec.Struct, frozen=True):
    boot: str
    """Of the machine: another one, or the same with other neighbours, is measured anew."""
    at_most: int
    curve: CostCurve


def measured_once(predict: Callable[[list[str]], object], *, batch_max: int, budget_s: float, path: Path | None) -> CostCurve:
    """The curve in ``path``, if it was measured here with this ``batch_max`` since the machine started; else as ``measure`` finds it, written there. Either way ``predict`` is warm afterwards.

    Args:
        predict: answers texts.
        batch_max: texts in one batch at most.
        budget_s: for measuring.
        path: where it is kept; None: nowhere.
    """
    boot = _boot()
    if path is not None and boot:
        try:
            kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
        except (OSError, msgspec.MsgspecError) as e:
            log.info("nothing is known of what a batch takes: %s", type(e).__name__)
        else:
            if kept.boot == boot and kept.at_most == batch_max:
                for n in (8, 24, 64):
                    predict([sample_text(n)])
                predict([sample_text(24, i) for i in range(kept.curve.batch_max)])
                return kept.curve
    curve = measure(predict, batch_max=batch_max, budget_s=budget_s)
    if path is not None and boot:
        try:
            write_file(path, msgspec.json.encode(_Kept(boot, batch_max, curve)))
        except (OSError, WenfangError) as e:  # the next replica measures again
            log.warning("%s was not written: %s", path.name, e)
    return curve


def _boot() -> str:
    """Names this start of this machine; empty where nobody says."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
