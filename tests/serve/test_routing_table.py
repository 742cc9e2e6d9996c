"""The routing table on disk."""

import stat
import time
from pathlib import Path

import pytest

from wenfang.core.errors import Broken
from wenfang.serve.routing import Principal, RoutedModel, RoutedService, RoutingTable, read_table, replica_socket, write_table

TABLE = RoutingTable(3, {"意图": RoutedService("pj", "mv")}, {"mv": RoutedModel("a:1", "tagging", ["/s"])}, {"00": Principal("ky", ["service:call"], None, 1.5)})


def test_it_comes_back_as_it_was_and_only_its_owner_reads_it(tmp_path):
    write_table(tmp_path / "routes.json", TABLE)
    assert read_table(tmp_path / "routes.json") == TABLE
    assert stat.S_IMODE((tmp_path / "routes.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "{", '{"epoch": "x"}', '{"epoch": 1, "more": 2}', '{"epoch": 1, "services": {"a": {"project": "p", "model": "gone"}}}'])
def test_a_bad_table_is_refused(tmp_path, text):
    (tmp_path / "routes.json").write_text(text)
    with pytest.raises(Broken) as caught:
        read_table(tmp_path / "routes.json")
    assert caught.value.code == "serve.no-routes"
    with pytest.raises(Broken):
        read_table(tmp_path / "none.json")


def test_who_may():
    everywhere, here = Principal("a", ["*"]), Principal("b", ["service:call"], "p1", time.time() + 100)
    assert everywhere.may("service:call", "p1")
    assert here.may("service:call", "p1")
    assert not here.may("service:call", "p2")
    assert not here.may("service:write", "p1")
    assert not here.expired()
    assert Principal("c", [], expires_at=1.0).expired()


def test_socket_paths_stay_short():
    run = Path("/" + "x" * 79)
    assert len(bytes(replica_socket(run, "mv_" + "0" * 26, 255))) <= 107
