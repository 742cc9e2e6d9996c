"""Looks at the machine and the home and says what is well and what is not; changes nothing."""

from __future__ import annotations

import importlib.util
import os
import shutil
from typing import Any

from wenfang.core.errors import WenfangError
from wenfang.core.home import Home
from wenfang.core.settings import load_settings
from wenfang.stores import sqlite_verdict

__all__ = ["examine"]

DISK_WARN_BYTES, DISK_BAD_BYTES = 5 << 30, 500 << 20


def _finding(state: str, key: str, **fields: Any) -> dict[str, Any]:
    return {"state": state, "key": f"doctor.{key}", "fields": fields}


def examine(home: Home) -> list[dict[str, Any]]:
    """Findings: ``state`` (ok, warn, bad), ``key`` and ``fields`` of the catalogue."""
    return [*_machine(home), *_settings(home), *_permissions(home), *_libraries()]


def _machine(home: Home) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    folder = home.root
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    state = "bad" if free < DISK_BAD_BYTES else "warn" if free < DISK_WARN_BYTES else "ok"
    found.append(_finding(state, "disk", path=str(home.root), free_gib=f"{free / 2**30:.1f}"))
    found.append(_finding("ok", "cores", cores=len(os.sched_getaffinity(0))))
    version, good = sqlite_verdict()
    found.append(_finding("ok", "sqlite-fixed" if good else "sqlite-guarded", version=version))
    return found


def _settings(home: Home) -> list[dict[str, Any]]:
    try:
        settings = load_settings(home.root)
    except WenfangError as e:
        return [_finding("bad", "settings-wrong", reason=e.detail())]
    found = [_finding("ok", "settings")]
    if settings.serve.host not in {"127.0.0.1", "::1", "localhost"}:
        found.append(_finding("warn", "open-host", host=settings.serve.host))
    return found


def _permissions(home: Home) -> list[dict[str, Any]]:
    if home.root.exists() and not home.root.is_dir():
        return [_finding("bad", "not-writable", path=str(home.root))]
    if not home.root.is_dir():
        return [_finding("ok", "no-home", path=str(home.root))]
    loose = [p.name for p in home.keys.glob("*") if p.suffix != ".pub" and p.stat().st_mode & 0o077]
    if home.keys.is_dir() and home.keys.stat().st_mode & 0o077:
        loose.append("keys/")
    writable = os.access(home.root, os.W_OK)
    found = [_finding("ok" if writable else "bad", "writable" if writable else "not-writable", path=str(home.root))]
    found.append(_finding("bad", "keys-loose", names=loose) if loose else _finding("ok", "keys"))
    return found


def _libraries() -> list[dict[str, Any]]:
    missing = [m for m in ("torch", "sklearn", "scipy", "numba", "onnx") if importlib.util.find_spec(m) is None]
    return [_finding("warn", "no-training", names=missing) if missing else _finding("ok", "training")]
