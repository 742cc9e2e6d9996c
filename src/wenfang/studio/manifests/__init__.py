"""What ``wenfang deploy render`` writes: an installation as plain Kubernetes manifests, made from its settings.

A pure function from settings to texts: equal settings give equal bytes. Reads no home, holds no secret and knows no cluster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from wenfang.core.settings import Settings

from .inside import given_as_secret, inside_toml
from .objects import config_map, disruption_budget, namespace, network_policy, secret, services
from .pod import studio_set
from .ray import TOKEN, ray_cluster, ray_policy
from .writing import to_yaml

__all__ = ["HEAD", "render"]

HEAD = "# Written by `wenfang deploy render`: change wenfang.toml and render again.\n"
ABOUT_SECRETS = """\
# A place for secrets, and none of them: nothing secret is ever written into a file.
# Fill it once, before the studio starts:
#   kubectl -n {namespace} create secret generic {name}-secrets {literals} --dry-run=client -o yaml | kubectl apply --server-side -f -
"""


def render(settings: Settings) -> dict[str, str]:
    """The manifests by file name, in the order in which they are applied.

    Args:
        settings: of the installation; [deploy] says what the cluster gives it, the rest is carried into the pod.

    """
    deploy = settings.deploy
    config = inside_toml(settings)
    secrets = given_as_secret(settings)
    digest = hashlib.sha256(config.encode()).hexdigest()
    cluster = settings.deploy.ray_workers_max > 0
    literals = " ".join(f"--from-literal={key}=…" for key in [*secrets, *([TOKEN] if cluster else [])])
    head = ABOUT_SECRETS.format(namespace=deploy.namespace, name=deploy.name, literals=literals)
    files = {
        "00-namespace.yaml": HEAD + to_yaml(namespace(deploy)),
        "10-config.yaml": HEAD + to_yaml(config_map(deploy, config)),
        "10-secrets.yaml": HEAD + head + to_yaml(secret(deploy)),
        "20-network.yaml": HEAD + _several(network_policy(settings)),
        "30-service.yaml": HEAD + _several(*services(deploy)),
        "40-studio.yaml": HEAD + to_yaml(studio_set(deploy, settings.serve, secrets=secrets, config_digest=digest)),
        "50-disruption.yaml": HEAD + to_yaml(disruption_budget(deploy)),
    }
    if cluster:
        files["60-ray.yaml"] = HEAD + _several(ray_policy(settings), ray_cluster(settings))
    return files


def _several(*documents: Mapping[str, Any]) -> str:
    return "---\n".join(to_yaml(d) for d in documents)
