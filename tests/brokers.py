"""Real brokers for tests: those that answer, or our own from an installed server program, on a port and in a folder of their own."""

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from dataplane import free_port
from wenfang.core.errors import WenfangError
from wenfang.core.home import Home
from wenfang.stores import open_bus

URLS = {
    "nats": os.environ.get("WENFANG_TEST_NATS", "nats://127.0.0.1:4222"),
    "rabbitmq": os.environ.get("WENFANG_TEST_RABBITMQ", "rabbitmq://guest:guest@127.0.0.1:5672/").replace("amqp://", "rabbitmq://"),
    "redis": os.environ.get("WENFANG_TEST_REDIS", "redis://127.0.0.1:6379/0"),
    "kafka": os.environ.get("WENFANG_TEST_KAFKA", "kafka://127.0.0.1:9092"),
}
PROGRAMS = {"nats": "nats-server", "redis": "redis-server", "rabbitmq": "/usr/lib/rabbitmq/bin/rabbitmq-server"}


class Broker:
    """A server of our own."""

    def __init__(self, kind):
        if not shutil.which(PROGRAMS.get(kind, "-")):
            pytest.skip(f"no server program of {kind} is installed")
        self.kind, self.port = kind, free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"wf-{kind}-"))
        self.url = {"nats": f"nats://127.0.0.1:{self.port}", "redis": f"redis://127.0.0.1:{self.port}/0", "rabbitmq": f"rabbitmq://guest:guest@127.0.0.1:{self.port}/"}[kind]
        self.name = f"wf{secrets.token_hex(4)}@localhost"
        self.process = None
        self.start()

    def command(self):
        where = str(self.folder)
        return {
            "nats": ["nats-server", "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", where],
            "redis": ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--dir", where, "--appendonly", "yes", "--appendfsync", "always", "--save", ""],
            "rabbitmq": [PROGRAMS["rabbitmq"]],
        }[self.kind]

    def start(self):
        given = {
            **os.environ, "RABBITMQ_NODENAME": self.name, "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1", "RABBITMQ_NODE_PORT": str(self.port), "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"), "RABBITMQ_LOG_BASE": str(self.folder / "log"), "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"), "HOME": str(self.folder), "RABBITMQ_CONFIG_FILE": str(self.folder / "none"),
        }  # fmt: skip
        with open(self.folder / "out.log", "ab") as out:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=given, start_new_session=True)
        until = time.monotonic() + 90
        while not answers(self.url):
            assert self.process.poll() is None and time.monotonic() < until, (self.folder / "out.log").read_text()[-2000:]
            time.sleep(0.1)

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self):
        if self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def answers(url):
    """Whether somebody speaks the protocol there."""

    async def ask():
        bus = await open_bus(url, Home(Path(tempfile.gettempdir())))
        await bus.close()

    host, _, port = url.rpartition("@")[2].rpartition("//")[2].partition("/")[0].partition(":")
    try:
        socket.create_connection((host, int(port or 0)), timeout=2).close()
        asyncio.run(ask())
    except (OSError, WenfangError):
        return False
    return True


_found = {}


def broker_url(kind):
    """The URL of a broker that answers; skips the test with the reason when there is none."""
    if kind in {"local", "memory"}:
        return f"{kind}:"
    if kind not in _found:
        _found[kind] = URLS[kind] if answers(URLS[kind]) else None
    if _found[kind] is None and shutil.which(PROGRAMS.get(kind, "-")):
        import atexit

        own = Broker(kind)
        atexit.register(own.close)
        _found[kind] = own.url
    if _found[kind] is None:
        pytest.skip(f"no {kind} broker answers at WENFANG_TEST_{kind.upper()}, and no server program of it is installed")
    return _found[kind]


def queue_name(what="q"):
    """A name that nobody else has."""
    return f"wenfang_test.{what}-{secrets.token_hex(6)}"
