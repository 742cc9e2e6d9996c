"""A file holds its old bytes or all the new ones, wherever the process dies."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from wenfang.core.durable import write_file
from wenfang.core.errors import Broken

WRITE = "import sys; from pathlib import Path; from wenfang.core.durable import write_file; write_file(Path(sys.argv[1]), b'new' * 5000); print('acknowledged', flush=True)"


def crash(at, path, log=None):
    env = {**os.environ, **({"WENFANG_CRASH_AT": str(at)} if at else {}), **({"WENFANG_CRASH_LOG": str(log)} if log else {})}
    return subprocess.run([sys.executable, "-c", WRITE, str(path)], capture_output=True, text=True, env=env, check=False)


def test_killed_at_every_step_it_is_old_or_new_and_new_once_acknowledged(tmp_path):
    crash(None, tmp_path / "count", tmp_path / "log")
    points = (tmp_path / "log").read_text().splitlines()
    assert [p.split()[1] for p in points] == ["write", "fsync", "rename", "fsync-folder"]
    for at in range(1, len(points) + 1):
        path = tmp_path / f"file-{at}"
        path.write_bytes(b"old")
        done = crash(at, path)
        assert done.returncode == -signal.SIGKILL and "acknowledged" not in done.stdout
        assert path.read_bytes() in {b"old", b"new" * 5000}
    assert "acknowledged" in crash(len(points) + 1, path).stdout


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    def chunks():
        yield b"some"
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(Broken, match="write-failed") as e:
        write_file(tmp_path / "a", chunks())
    assert "No space left" in e.value.detail("en")
    assert (tmp_path / "a").read_bytes() == b"old" and list(tmp_path.iterdir()) == [tmp_path / "a"]
