"""An upgrade where one gateway owns the port alone; the other way round is in test_changes.py."""

import pytest

from changing_world import Load, deploy, publish, upgrade_under_load
from worlds import Tree


@pytest.mark.slow
def test_one_gateway_hands_its_socket_over(tmp_path):
    home = tmp_path / "home"
    publish(home, 2)
    (home / "wenfang.toml").write_text("[serve]\ngateways = 1\nreplicas = 1\ncache_bytes = 0\n")
    with Tree(home) as tree:
        deploy(tree, 1)
        upgrade_under_load(tree, Load(tree.port, Tree.KEY, connections=4, grpc_port=int(tree.env["WENFANG_SERVE__GRPC_PORT"]), pause_s=0.01))
    assert tree.process.returncode == 0
