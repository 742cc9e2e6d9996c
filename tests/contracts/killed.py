"""Runs a piece of code many times, each time killed (SIGKILL) at the next crash point, in forks of one process that imported everything."""

import json
import subprocess
import sys
from pathlib import Path

DRIVER = """
import json, os, sys, pathlib
sys.path.insert(0, sys.argv[2])
root, code = pathlib.Path(sys.argv[1]), compile(sys.stdin.read(), "killed", "exec")
PRELOAD
def run(at, **env):
    pid = os.fork()
    if pid == 0:
        os.environ.update(env)
        sys.stdout = open(root / f"out{at}", "w", buffering=1)
        sys.stderr = open(root / f"err{at}", "w")
        code_at = 0
        try:
            exec(code, {"__name__": "killed", "folder": root / f"f{at}"})
        except BaseException:
            import traceback
            traceback.print_exc()
            code_at = 1
        sys.stderr.flush()
        os._exit(code_at)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
assert run(0, WENFANG_CRASH_LOG=str(root / "log")) == 0, (root / "err0").read_text()
points = (root / "log").read_text().splitlines()
print(json.dumps([[p, run(n, WENFANG_CRASH_AT=str(n))] for n, p in enumerate(points, 1)]))
"""


def killed_at_every_point(code, root, preload):
    """Each crash point as (its name, the folder it left, what was acknowledged on standard output); the first is the whole run."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER.replace("PRELOAD", preload), str(root), str(Path(__file__).parent.parent)], input=code, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    points = json.loads(done.stdout)
    assert [p for p in points if p[1] != -9] == []
    return [("", root / "f0", (root / "out0").read_text().split())] + [(name, root / f"f{n}", (root / f"out{n}").read_text().split()) for n, (name, _) in enumerate(points, 1)]
