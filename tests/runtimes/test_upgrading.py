"""What an upgrade rests on: the next program is tried first, a tree that cannot be upgraded says so, adopted children are reaped."""

import subprocess
import sys

import pytest

from dataplane import Tree
from wenfang.core.errors import Broken, Unsupported
from wenfang.runtimes.upgrading import Adopted, check_next


def test_a_program_that_does_not_run_is_refused_before_anything_changes():
    check_next([sys.executable, "-c", "pass"])
    with pytest.raises(Broken) as caught:
        check_next([sys.executable, "-c", "import no_such_module_of_ours"])
    assert caught.value.code == "runtime.upgrade-refused"
    assert "no_such_module_of_ours" in caught.value.fields["reason"]
    with pytest.raises(Broken):
        check_next(["/no/such/python"])


def test_a_tree_that_knows_no_command_to_start_it_again_says_so():
    tree = Tree()
    try:
        with pytest.raises(Unsupported) as caught:
            tree.runtime.upgrade()
        assert caught.value.code == "runtime.no-upgrade"
    finally:
        tree.close()


def test_an_adopted_child_is_waited_for_by_its_number():
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.exit(7)"])
    adopted = Adopted(child.pid)
    assert adopted.wait(20) == 7
    child.returncode = 7  # reaped
    assert adopted.poll() == 7
    long = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    adopted = Adopted(long.pid)
    with pytest.raises(subprocess.TimeoutExpired):
        adopted.wait(0.05)
    adopted.kill()
    assert adopted.wait(20) == -9
    long.returncode = -9
