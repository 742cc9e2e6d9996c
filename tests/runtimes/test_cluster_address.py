"""What may stand after ``--runtime``, without a cluster and without ray."""

import pytest

from wenfang.core.errors import Invalid, Unsupported
from wenfang.runtimes import ray_actor
from worlds import wenfang


@pytest.mark.parametrize("address", ["ray://", "ray://:1", "http://h:1", "ray://h:port", "ray://h:99999", "ray://user@h:1", "ray://h:1/x", "h:1"])
def test_no_address_of_a_cluster(address):
    with pytest.raises(Invalid) as caught:
        ray_actor.reachable(address)
    assert caught.value.code == "runtime.bad-address"


def test_without_ray_the_command_says_what_to_install(monkeypatch):
    monkeypatch.setattr(ray_actor, "find_spec", lambda _: None)
    with pytest.raises(Unsupported, match=r"wenfang\[ray\]"):
        ray_actor.reachable("ray://127.0.0.1:1")


def test_a_wrong_runtime_is_refused_before_anything_starts(tmp_path):
    done = wenfang("up", "--home", tmp_path / "h", "--runtime", "kubernetes://x", timeout=60)
    assert done.returncode == 1 and "[settings.bad-value]" in done.stderr and "runtime.address" in done.stderr
    done = wenfang("up", "--home", tmp_path / "h", "--runtime", "ray://h:port", timeout=60)
    assert done.returncode == 1 and "[runtime.bad-address]" in done.stderr
    assert not (tmp_path / "h" / "studio.db").exists()
