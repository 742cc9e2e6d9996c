"""The Ray cluster on which replicas run when one pod is not enough: a RayCluster of KubeRay, same image, token asked of everybody."""

from __future__ import annotations

from typing import Any

from wenfang.core.settings import Settings

from .inside import HOME, USER_ID
from .objects import metadata
from .pod import CONTAINER_GUARDS, POD_GUARDS, cores

__all__ = ["RAY_PORTS", "TOKEN", "ray_cluster", "ray_policy"]

RAY_VERSION = "2.60.0"
"""The one of constraints.txt: head, workers and studio must agree."""
TOKEN = "auth_token"  # noqa: S105 the name of an entry, as KubeRay asks for it
RAY_PORTS = {"gcs": 6379, "dashboard": 8265, "client": 10001}


def ray_cluster(settings: Settings) -> dict[str, Any]:
    """A head that runs nothing of ours, and workers between two numbers, as many as replicas ask for."""
    deploy = settings.deploy
    head = {"cpu": "1", "memory": "3Gi"}
    worker = {"cpu": cores(deploy.ray_cpu), "memory": deploy.ray_memory, **({"nvidia.com/gpu": str(deploy.ray_gpus)} if deploy.ray_gpus else {})}
    spec = {
        "rayVersion": RAY_VERSION,
        "authOptions": {"mode": "token", "secretName": f"{deploy.name}-secrets"},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {"upscalingMode": "Default", "idleTimeoutSeconds": 120},
        "headGroupSpec": {"serviceType": "ClusterIP", "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"}, "template": _pod(settings, "head", head)},  # noqa: S104 of the pod
        "workerGroupSpecs": [
            {
                "groupName": "replicas",
                "replicas": deploy.ray_workers_min,
                "minReplicas": deploy.ray_workers_min,
                "maxReplicas": deploy.ray_workers_max,
                "rayStartParams": {},
                "template": _pod(settings, "worker", worker),
            }
        ],
    }
    return {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": _named(settings), "spec": spec}


def _labels(settings: Settings) -> dict[str, str]:
    return {"app.kubernetes.io/name": "wenfang-ray", "app.kubernetes.io/instance": settings.deploy.name}


def _named(settings: Settings) -> dict[str, Any]:
    return {**metadata(settings.deploy, "ray"), "labels": _labels(settings)}


def _pod(settings: Settings, role: str, given: dict[str, str]) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": f"ray-{role}",
        "image": settings.deploy.image,
        "env": [{"name": "HOME", "value": HOME}, {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"}],
        "resources": {"requests": given, "limits": given},
        "securityContext": CONTAINER_GUARDS,
        "volumeMounts": [{"name": "home", "mountPath": HOME}, {"name": "tmp", "mountPath": "/tmp"}, {"name": "objects", "mountPath": "/dev/shm"}],  # noqa: S108 the pod's own
    }
    if role == "head":
        container["ports"] = [{"name": name, "containerPort": port} for name, port in RAY_PORTS.items()]
    volumes: list[dict[str, Any]] = [
        {"name": "home", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "8Gi"}},
        {"name": "objects", "emptyDir": {"medium": "Memory", "sizeLimit": "512Mi"}},
    ]
    guards = {k: v for k, v in POD_GUARDS.items() if k != "fsGroupChangePolicy"}
    pod: dict[str, Any] = {
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {**guards, "runAsUser": USER_ID},
        "containers": [container],
        "volumes": volumes,
    }
    return {"metadata": {"labels": _labels(settings)}, "spec": pod}


def ray_policy(settings: Settings) -> dict[str, Any]:
    """In: the cluster's own pods, the studio, and KubeRay's operator for the dashboard. Out: the cluster's own pods, names, and the interface of Kubernetes that the autoscaler asks."""
    deploy = settings.deploy
    own = {"podSelector": {"matchLabels": _labels(settings)}}
    studio = {"podSelector": {"matchLabels": metadata(deploy)["labels"]}}
    operator = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}}}
    spec: dict[str, Any] = {
        "podSelector": {"matchLabels": _labels(settings)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [own, studio]}, {"from": [operator], "ports": [{"protocol": "TCP", "port": RAY_PORTS["dashboard"]}]}],
        "egress": [
            {"to": [own]},
            {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]},
            {"ports": [{"protocol": "TCP", "port": 443}, {"protocol": "TCP", "port": 6443}]},
        ],
    }
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": _named(settings), "spec": spec}
