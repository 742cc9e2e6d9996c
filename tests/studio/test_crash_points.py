"""kill -9 at every write, fsync, rename and commit of import, publish and switch: counted and exhaustive, and every fourth of them in the short run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from crash_world import ROWS

from worlds import write_csv


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 4])
@pytest.mark.parametrize(("act", "least"), [("import", 10), ("publish", 10), ("switch", 6)])
def test_nothing_acknowledged_is_lost_and_nothing_is_half(act, least, every, tmp_path):
    write_csv(tmp_path / "tickets.csv", ROWS)
    script = Path(__file__).with_name("crash_world.py")
    done = subprocess.run([sys.executable, str(script), str(tmp_path), act, str(every)], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["points"] >= least
    assert report["faults"] == []
    assert report["acknowledged"] >= 1  # the last attempt has no point left to die at
