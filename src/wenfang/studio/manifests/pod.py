"""The pod in which ``wenfang up`` runs, and the set that keeps one of it beside its home."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wenfang.core.settings import Deploy, Serve

from .inside import GRPC_PORT, HOME, HTTP_PORT, USER_ID
from .objects import labels, metadata

__all__ = ["CONTAINER_GUARDS", "POD_GUARDS", "cores", "studio_set"]

LEAVE_S = 5
"""Between leaving the service's addresses and SIGTERM: what the balancers still send meanwhile is answered."""
STOP_S = 20 + 10 + 5 + 10
"""What the tree may take to stop in order: gateways, jobs, replicas, control."""
FIRST_ANSWER_S = 600
"""A start may repair a database and warm many models."""
CONTAINER_GUARDS: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
POD_GUARDS: dict[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": USER_ID,
    "runAsGroup": USER_ID,
    "fsGroup": USER_ID,
    # the folder itself is looked at, not each file: else every mount would open keys/ to the group, and the studio refuses such keys
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}


def studio_set(deploy: Deploy, serve: Serve, *, secrets: Sequence[str], config_digest: str) -> dict[str, Any]:
    """One pod with its volume. A home is one process tree's: a second pod would find the lock taken, so the set never has two."""
    size: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": deploy.storage}}}
    if deploy.storage_class:
        size["storageClassName"] = deploy.storage_class
    pod = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # the cluster's WENFANG_…_HOST variables would be settings nobody knows
        "terminationGracePeriodSeconds": LEAVE_S + STOP_S + int(serve.deadline_s),
        "securityContext": POD_GUARDS,
        "containers": [_container(deploy, secrets)],
        "volumes": [{"name": "config", "configMap": {"name": f"{deploy.name}-config"}}, {"name": "tmp", "emptyDir": {"sizeLimit": "2Gi"}}],
    }
    spec = {
        "serviceName": f"{deploy.name}-pods",
        "replicas": 1,
        "selector": {"matchLabels": labels(deploy)},
        "template": {"metadata": {"labels": labels(deploy), "annotations": {"wenfang/config-sha256": config_digest}}, "spec": pod},
        "volumeClaimTemplates": [{"metadata": {"name": "home"}, "spec": size}],
    }
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata(deploy), "spec": spec}


def _container(deploy: Deploy, secrets: Sequence[str]) -> dict[str, Any]:
    more_env = _ray_env(deploy) if deploy.ray_workers_max else []
    from_secret = [{"name": name, "valueFrom": {"secretKeyRef": {"name": f"{deploy.name}-secrets", "key": name}}} for name in secrets]
    return {
        "name": "studio",
        "image": deploy.image,
        "args": ["up"],
        "env": [{"name": "WENFANG_HOME", "value": HOME}, *from_secret, *more_env],
        "ports": [{"name": "http", "containerPort": HTTP_PORT}, {"name": "grpc", "containerPort": GRPC_PORT}],
        # ready once every service answers; from then on one sick service must not take the others, or the control plane that mends it, from their callers
        "startupProbe": {**_probe("/readyz"), "periodSeconds": 2, "failureThreshold": FIRST_ANSWER_S // 2},
        "readinessProbe": {**_probe("/healthz"), "periodSeconds": 5, "failureThreshold": 2},
        "livenessProbe": {**_probe("/healthz"), "periodSeconds": 10, "failureThreshold": 6},
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(LEAVE_S)]}}},
        "resources": {"requests": {"cpu": cores(deploy.cpu), "memory": deploy.memory}, "limits": {"cpu": cores(deploy.cpu), "memory": deploy.memory}},
        "securityContext": CONTAINER_GUARDS,
        "volumeMounts": [
            {"name": "home", "mountPath": HOME},
            {"name": "config", "mountPath": f"{HOME}/wenfang.toml", "subPath": "wenfang.toml", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 the pod's own
        ],
    }


def _ray_env(deploy: Deploy) -> list[dict[str, Any]]:
    token = {"secretKeyRef": {"name": f"{deploy.name}-secrets", "key": "auth_token"}}
    return [{"name": "RAY_AUTH_MODE", "value": "token"}, {"name": "RAY_AUTH_TOKEN", "valueFrom": token}, {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"}]


def _probe(path: str) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": "http"}, "timeoutSeconds": 3}


def cores(cpu: float) -> str:
    """As Kubernetes writes it.

    >>> cores(2.0), cores(0.5)
    ('2', '500m')
    """
    return f"{round(cpu * 1000)}m" if cpu % 1 else str(int(cpu))
