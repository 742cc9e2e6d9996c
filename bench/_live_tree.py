"""What the benches of changes stand on: a studio as a person starts it, with model versions that say who they are; the load is the tests'."""

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from changing_world import Load, deploy, publish, replicas  # noqa: E402
from wenfang.core.home import Home  # noqa: E402
from wenfang.runtimes.local import LocalRuntime  # noqa: E402
from worlds import Tree  # noqa: E402

__all__ = ["Load", "LocalRuntime", "Tree", "deploy", "memory_bytes", "processes", "replicas", "studio"]


class studio(tempfile.TemporaryDirectory):  # noqa: N801 used like a function
    """``with studio(versions=2, gateways=2) as tree``."""

    def __init__(self, *, versions, settings):
        super().__init__(prefix="wfl")
        self.versions, self.settings, self.tree = versions, settings, None

    def __enter__(self):
        home = Path(super().__enter__()) / "home"
        publish(home, self.versions)
        (home / "wenfang.toml").write_text("".join(f"[{section}]\n" + "".join(f"{k} = {v}\n" for k, v in keys.items()) for section, keys in self.settings.items()))
        self.tree = Tree(home).start()
        return self.tree

    def __exit__(self, *what):
        self.tree.stop()
        super().__exit__(*what)


def processes(tree):
    """Pids of what runs, by name."""
    return {n: p["pid"] for n, p in LocalRuntime(Home(tree.home)).processes().items() if p["state"] == "running"}


def memory_bytes(pid):
    """Proportional memory of a process; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/smaps_rollup").read_text().partition("\nPss:")[2].split()[0]) * 1024
    except OSError:
        return 0


def number(name, default):
    """A whole number from the environment."""
    return int(os.environ.get(name, default))
