"""Starting and stopping the process tree: ``wenfang up``, ``wenfang down``, and ``run --serve`` when nothing runs yet."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from wenfang.core.durable import write_file
from wenfang.core.errors import Broken, Conflict, WenfangError
from wenfang.core.home import Home, HomeLock
from wenfang.core.settings import Serve, load_settings
from wenfang.core.words import say

__all__ = ["address", "become_tree", "home_at", "prepare_tree", "start_detached", "stop_tree", "upgrade_tree"]

READY_TIMEOUT_S = 120.0
UPGRADE_TIMEOUT_S = 600.0


def home_at(path: str | None) -> Home:
    """The home the flag, ``WENFANG_HOME`` or the default names."""
    return Home(Path(path or os.environ.get("WENFANG_HOME") or "wenfang-home").expanduser().absolute())


def address(home: Home) -> str | None:
    """The URL of the running gateway, as the last start wrote it."""
    path = home.run / "address.json"
    return json.loads(path.read_text(encoding="utf-8"))["url"] if path.is_file() else None


def _checked_port(host: str, port: int, grpc_port: int) -> int:
    """``port`` if it is free (or a free one for 0), and so is the port of gRPC.

    Raises:
        Conflict: `cli.port-in-use`.
    """
    for _ in range(20):
        found = _free_port(host, port)
        if not grpc_port or find_spec("grpc") is None:
            return found
        beside = found + 1 if grpc_port < 0 else grpc_port
        try:
            _free_port(host, beside)
        except (Conflict, OverflowError):
            if port or grpc_port > 0:
                raise Conflict("cli.grpc-port-in-use", host=host, port=beside) from None
            continue
        return found
    raise Conflict("cli.port-in-use", host=host, port=port)


def _free_port(host: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as e:
            raise Conflict("cli.port-in-use", host=host, port=port) from e
        return probe.getsockname()[1]


def prepare_tree(home: Home, host: str | None, port: int | None) -> tuple[dict[str, Any], str | None]:
    """The plan of the tree, and the first admin key if it was just made.

    Raises:
        Conflict: `home.in-use`, `cli.port-in-use`.
        Broken: `runtime.cluster-away`.
    """
    from wenfang.studio.wiring import bootstrap_key, cluster_processes, open_in_place

    home.prepare()
    settings = load_settings(home.root)
    cluster = cluster_processes(home, settings)
    studio, lock = open_in_place(home, settings)
    try:
        key = bootstrap_key(studio, os.environ.get("WENFANG_BOOTSTRAP_KEY"))
    finally:
        studio.tables.close()
        lock.release()
    serve: Serve = settings.serve
    host = host or serve.host
    port = _checked_port(host, serve.port if port is None else port, serve.grpc_port)
    reach = "127.0.0.1" if host in {"0.0.0.0", ""} else host  # noqa: S104 what the operator asked for
    url = f"http://{f'[{reach}]' if ':' in reach else reach}:{port}"
    write_file(home.run / "address.json", json.dumps({"host": host, "port": port, "url": url}).encode())
    gateways = [
        {"name": f"gateway-{i}", "entry": "wenfang.doors.gateway:main", "arguments": {"home": str(home.root), "index": i, "host": host, "port": port}}
        for i in range(serve.gateways)
    ]
    control = {"name": "control", "entry": "wenfang.doors.control:main", "arguments": {"home": str(home.root)}}
    return {"home": str(home.root), "processes": [*cluster, control, *gateways], "reach": reach, "port": port, "url": url, "ready_timeout_s": READY_TIMEOUT_S}, key


def _command(plan: dict[str, Any]) -> list[str]:
    return [sys.executable, "-m", "wenfang.runtimes.tree", json.dumps(plan)]


def become_tree(plan: dict[str, Any]) -> None:
    """Turn this process into the supervisor: the libraries of the command line are left behind."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, _command(plan))  # noqa: S606 our own interpreter


def start_detached(home: Home, plan: dict[str, Any]) -> int:
    """Start the tree in the background and return its pid once it answers.

    Raises:
        Broken: `cli.up-failed`.
    """
    from wenfang.runtimes.tree import wait_ready

    log = home.logs / "supervisor.log"
    with log.open("ab") as out:
        tree = subprocess.Popen(_command(plan), stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    until = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < until:
        if tree.poll() is not None:
            raise Broken("cli.up-failed", reason=log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1][:300], logs=str(log))
        if wait_ready(plan["reach"], plan["port"], 0.5):
            return tree.pid
    tree.terminate()
    raise Broken("cli.up-failed", reason=f"no answer within {READY_TIMEOUT_S:.0f} s", logs=str(home.logs))


def stop_tree(home: Home, timeout_s: float = 60.0) -> bool:
    """Stop the running tree and wait until its home is free; False if none runs."""
    from wenfang.runtimes.local import LocalRuntime

    try:
        LocalRuntime(home).shutdown()
    except WenfangError:
        return False
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        try:
            HomeLock(home).release()
            return True
        except Conflict:
            time.sleep(0.05)
    raise Broken("cli.up-failed", reason=f"still running after {timeout_s:.0f} s", logs=str(home.logs))


def upgrade_tree(home: Home, timeout_s: float = UPGRADE_TIMEOUT_S) -> None:
    """Turn the running tree into the program that is installed now; returns when every process is new.

    Raises:
        Conflict: `cli.not-running`, `runtime.upgrade-under-way`; Broken: `runtime.upgrade-refused`, `cli.upgrade-stuck`.
    """
    from wenfang.runtimes.local import LocalRuntime
    from wenfang.runtimes.renewal import RENEW_FILE

    runtime = LocalRuntime(home)
    try:
        old = {name: p["pid"] for name, p in runtime.processes().items() if p["state"] == "running" and not name.startswith("job-")}
    except WenfangError as e:
        raise Conflict("cli.not-running", path=str(home.root)) from e
    runtime.upgrade()
    until = time.monotonic() + timeout_s
    left = set(old.values())
    while (left or (home.run / RENEW_FILE).exists()) and time.monotonic() < until:
        time.sleep(0.2)
        try:
            left = {p["pid"] for p in runtime.processes().values()} & set(old.values())
        except WenfangError:  # between two programs
            continue
    if left:
        raise Broken("cli.upgrade-stuck", names=sorted(name for name, pid in old.items() if pid in left), logs=str(home.logs))


def say_first_key(key: str | None) -> None:
    """Show the first admin key, this once, on the terminal only."""
    if key:
        click.echo(say("cli.first-key"), err=True)
        click.echo(f"  {click.style(key, bold=True)}", err=True)
