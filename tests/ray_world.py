"""A Ray cluster for tests: a head and more machines, each in a network namespace of its own where this machine permits that, else on loopback."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from dataplane import TESTS
from wenfang.guard.certificate import own_certificate

SRC = TESTS.parent / "src"
NET = "198.18.77"
"""Of the range that is set apart for tests of networks."""
missing = "ray is not installed: pip install -c constraints.txt '.[ray]'" if find_spec("ray") is None else ""


def _run(*words, check=True):
    return subprocess.run(words, capture_output=True, text=True, timeout=90, check=check)


def namespaces_permitted():
    """Whether this user may make network namespaces and bridges here."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    tried = _run("ip", "netns", "add", "wf-try", check=False)
    if tried.returncode == 0:
        _run("ip", "netns", "del", "wf-try", check=False)
    return tried.returncode == 0


class Cluster:
    """``nodes`` machines; ``apart``: each in its own network namespace, this process beside them on a bridge.

    Without namespaces there is one machine, on loopback.
    """

    def __init__(self, nodes=1, cpus=4):
        self.apart = nodes > 1
        self.tag = f"wf{os.getpid() % 10_000}"
        self.folder = Path(tempfile.mkdtemp(prefix="wfray"))
        self.names = [f"{self.tag}n{i}" for i in range(nodes)]
        self.env = {
            **os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": f"{SRC}:{TESTS}", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t" * 40,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        }  # fmt: skip
        self.head = f"{NET}.1" if self.apart else "127.0.0.1"
        self.address = f"ray://{self.head}:10001"
        try:
            if self.apart:
                self._network()
            for i in range(nodes):
                self.start_node(i, cpus)
        except BaseException:
            self.close()
            raise

    def _network(self):
        _run("ip", "link", "add", f"{self.tag}br", "type", "bridge")
        _run("ip", "addr", "add", f"{NET}.254/24", "dev", f"{self.tag}br")
        _run("ip", "link", "set", f"{self.tag}br", "up")
        for i, name in enumerate(self.names):
            _run("ip", "netns", "add", name)
            _run("ip", "link", "add", f"{self.tag}v{i}", "type", "veth", "peer", "name", "eth0", "netns", name)
            _run("ip", "link", "set", f"{self.tag}v{i}", "master", f"{self.tag}br", "up")
            _run("ip", "-n", name, "addr", "add", f"{NET}.{i + 1}/24", "dev", "eth0")
            _run("ip", "-n", name, "link", "set", "eth0", "up")
            _run("ip", "-n", name, "link", "set", "lo", "up")

    def start_node(self, i, cpus=4):
        """Start the raylet of machine ``i`` (0: the head)."""
        inside = ["ip", "netns", "exec", self.names[i]] if self.apart else []
        node = f"--node-ip-address={NET}.{i + 1}" if self.apart else f"--node-ip-address={self.head}"
        common = ["ray", "start", node, f"--num-cpus={cpus}", "--object-store-memory=100000000", "--disable-usage-stats"]
        role = ["--head", "--port=6399", "--ray-client-server-port=10001", "--include-dashboard=false", f"--temp-dir={self.folder}"] if i == 0 else [f"--address={self.head}:6399"]
        log = self.folder / f"start-{i}.log"
        with open(log, "wb") as out:
            done = subprocess.run([*inside, *common, *role], env=self.env, stdout=out, stderr=out, timeout=90, check=False)
        assert done.returncode == 0, log.read_text()

    def pids(self, i):
        """Every process on machine ``i``."""
        return [int(p) for p in _run("ip", "netns", "pids", self.names[i]).stdout.split()]

    def kill_node(self, i):
        """As if its power went: every process on it, at once."""
        for pid in self.pids(i):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def cut_node(self, i):
        """As if its cable was pulled: its processes live on and reach nobody."""
        _run("ip", "link", "set", f"{self.tag}v{i}", "down")

    def restore_node(self, i):
        """Power and cable again, and whatever ran there begun anew."""
        self.kill_node(i)
        _run("ip", "link", "set", f"{self.tag}v{i}", "up")
        self.start_node(i)

    def close(self):
        """Stop what was started here, and take the network down."""
        if self.apart:
            for i in range(len(self.names)):
                self.kill_node(i)
            for i, name in enumerate(self.names):
                _run("ip", "netns", "del", name, check=False)
                _run("ip", "link", "del", f"{self.tag}v{i}", check=False)
            _run("ip", "link", "del", f"{self.tag}br", check=False)
        else:
            subprocess.run(["ray", "stop", "--force"], env=self.env, capture_output=True, timeout=60, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def cluster_arguments(home, address, **resources):
    """What the ``cluster`` process is started with."""
    return {"home": str(home.root), "address": address, "name": home.root.name, "resources": {"cpus": 0.25, "gpus": 0, **resources}, "certificate": str(own_certificate(home.keys))}
