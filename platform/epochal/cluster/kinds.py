"""Where the API server has objects of each kind that a cluster is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Manifest = dict[str, Any]
"""An object, as Kubernetes writes it."""

KINDS = {
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
    "Role": ("/apis/rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "RayCluster": ("/apis/ray.io/v1", "rayclusters"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "StatefulSet": ("/apis/apps/v1", "statefulsets"),
    "Pod": ("/api/v1", "pods"),
    "Event": ("/api/v1", "events"),
}
"""Kind -> the path of its API, and its name there."""


def path_to(kind: str, namespace: str, name: str = "") -> str:
    """The path of the object, or of all in the namespace.

    >>> path_to("RayCluster", "training", "pool")
    '/apis/ray.io/v1/namespaces/training/rayclusters/pool'
    """
    api, plural = KINDS[kind]
    return f"{api}/namespaces/{namespace}/{plural}" + (f"/{name}" if name else "")


def path_of(manifest: Mapping[str, Any]) -> str:
    """Of an object that may not be there yet."""
    metadata = manifest["metadata"]
    return path_to(manifest["kind"], metadata["namespace"], metadata["name"])
