"""Tiny worlds with known answers, and the processes that run in them."""

import contextlib
import csv
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

WORDS = {
    "退款": ["退款什么时候到账", "我要申请退款", "退货退钱怎么操作", "钱退到哪里"],
    "物流": ["快递到哪里了", "包裹三天没动", "什么时候发货", "物流信息不更新"],
    "发票": ["怎么开发票", "电子发票在哪下载", "发票抬头写错了", "需要增值税专票"],
}
TAILS = ["", "，谢谢", "？", "！急", "，麻烦看一下", "，订单号{n}", "，我是老客户", "，在线等"]


def separable(n: int, seed: int = 0) -> list[tuple[str, str]]:
    """``n`` texts that a linear model separates perfectly, with their labels."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        label = rng.choice(list(WORDS))
        rows.append((rng.choice(WORDS[label]) + rng.choice(TAILS).format(n=rng.randrange(10**6)) + str(i % 7), label))
    return rows


def write_csv(path: Path, rows, header=("text", "label"), encoding="utf-8") -> Path:
    with open(path, "w", encoding=encoding, newline="") as f:
        w = csv.writer(f)
        if header:
            w.writerow(header)
        w.writerows(rows)
    return path


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wenfang(*words, home=None, timeout=240, env=None, check=None):
    """The command line in a process of its own."""
    more = {"WENFANG_HOME": str(home)} if home else {}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "wenfang.doors.cli", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "WENFANG_LANG": "en", **more, **(env or {})},
        check=False,
    )
    if check is not None:
        assert done.returncode == check, (done.returncode, done.stdout[-2000:], done.stderr[-4000:])
    return done


def request(port, method, path, body=None, key=None, headers=None, timeout=30):
    """One HTTP request; returns (status, parsed JSON or text, headers)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    sent = dict(headers or {})
    if key:
        sent["Authorization"] = f"Bearer {key}"
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        sent.setdefault("Content-Type", "application/json")
    with contextlib.closing(connection):
        connection.request(method, path, body=body, headers=sent)
        reply = connection.getresponse()
        data = reply.read()
        kind = reply.headers.get("content-type", "")
        return reply.status, json.loads(data) if "json" in kind else data.decode(), reply.headers


class Tree:
    """A studio started as a person would start it: ``wenfang up``."""

    KEY = "wf_test-" + "k" * 43

    def __init__(self, home: Path, **env) -> None:
        self.home = home
        self.env = {**os.environ, "WENFANG_BOOTSTRAP_KEY": self.KEY, "WENFANG_LANG": "en", "WENFANG_SERVE__GRPC_PORT": str(free_port()), **env}
        self.port = free_port()
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "wenfang.doors.cli", "up", "--home", str(self.home), "--port", str(self.port)],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.wait_ready()
        return self

    def wait_ready(self, timeout=60):
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            assert self.process.poll() is None, self.process.stdout.read()[-3000:]
            with contextlib.suppress(OSError):
                if request(self.port, "GET", "/readyz")[0] == request(self.port, "GET", "/control/alive")[0] == 200:
                    return
            time.sleep(0.05)
        raise AssertionError("not ready; " + "".join(p.read_text()[-1500:] for p in self.home.glob("logs/*.log")))

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(60)
        code = self.process.returncode
        self.process.stdout.close()
        return code

    def call(self, method, path, body=None, **more):
        return request(self.port, method, path, body, key=more.pop("key", self.KEY), **more)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()


def alive(pid: int) -> bool:
    """Whether the process exists and is not just waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def descendants(pid: int) -> list[int]:
    """Every process under ``pid`` (by /proc)."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            parents[int(stat.parent.name)] = int(fields[1])
    found = []
    todo = [pid]
    while todo:
        parent = todo.pop()
        children = [c for c, p in parents.items() if p == parent]
        found += children
        todo += children
    return found
