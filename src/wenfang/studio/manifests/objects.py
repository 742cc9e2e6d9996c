"""Everything around the pod: namespace, configuration, secret, services, network policy, disruption budget."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from wenfang.core.settings import Deploy, Settings

from .inside import GRPC_PORT, HTTP_PORT

__all__ = ["config_map", "disruption_budget", "labels", "metadata", "namespace", "network_policy", "secret", "services"]


def labels(deploy: Deploy) -> dict[str, str]:
    """By which the pod is found."""
    return {"app.kubernetes.io/name": "wenfang", "app.kubernetes.io/instance": deploy.name}


def metadata(deploy: Deploy, name: str = "") -> dict[str, Any]:
    """Name, namespace and labels."""
    return {"name": f"{deploy.name}-{name}" if name else deploy.name, "namespace": deploy.namespace, "labels": labels(deploy)}


def namespace(deploy: Deploy) -> dict[str, Any]:
    """The namespace, where the cluster refuses whatever is not restricted."""
    guarded = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": deploy.namespace, "labels": {**labels(deploy), **guarded}}}


def config_map(deploy: Deploy, config: str) -> dict[str, Any]:
    """The settings."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(deploy, "config"), "data": {"wenfang.toml": config}}


def secret(deploy: Deploy) -> dict[str, Any]:
    """A place for secrets, empty: the pod waits until every one it needs is there."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata(deploy, "secrets"), "type": "Opaque"}


def services(deploy: Deploy) -> list[dict[str, Any]]:
    """Where callers go, and the one without an address that gives the pod its name."""
    ports = [{"name": "http", "port": HTTP_PORT, "targetPort": "http"}, {"name": "grpc", "port": GRPC_PORT, "targetPort": "grpc"}]
    named = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": labels(deploy), "ports": ports[:1]}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata(deploy), "spec": {"type": "ClusterIP", "selector": labels(deploy), "ports": ports}},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata(deploy, "pods"), "spec": named},
    ]


def network_policy(settings: Settings) -> dict[str, Any]:
    """In: the two ports, from the same namespace and from namespaces that are labelled as callers. Out: names, the database, and the ports the settings open."""
    deploy = settings.deploy
    callers: list[dict[str, Any]] = [{"podSelector": {}}, {"namespaceSelector": {"matchLabels": {f"{deploy.name}/caller": "true"}}}]
    out: list[dict[str, Any]] = [{"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}]
    tables = urlsplit(settings.store.tables)
    ports = sorted({*deploy.egress_ports, *([tables.port or 5432] if tables.scheme.startswith("postgresql") else [])})
    if ports:
        out.append({"ports": [{"protocol": "TCP", "port": port} for port in ports]})
    if deploy.ray_workers_max:
        out.append({"to": [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "wenfang-ray", "app.kubernetes.io/instance": deploy.name}}}]})
    spec: dict[str, Any] = {
        "podSelector": {"matchLabels": labels(deploy)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": callers, "ports": [{"protocol": "TCP", "port": "http"}, {"protocol": "TCP", "port": "grpc"}]}],
        "egress": out,
    }
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata(deploy), "spec": spec}


def disruption_budget(deploy: Deploy) -> dict[str, Any]:
    """The one pod that holds the home moves when a person says so: a drain of its node waits, unless the pod is ill anyway."""
    spec = {"minAvailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow", "selector": {"matchLabels": labels(deploy)}}
    return {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata(deploy), "spec": spec}
