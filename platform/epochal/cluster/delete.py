"""Deletes a cluster: its agent first, so that its jobs save their state and go back to the queue."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from epochal.cluster.api import Api
from epochal.cluster.kinds import path_to
from epochal.cluster.manifests import AGENT_DRAIN_SECONDS, CLUSTER_LABEL, ROLE_LABEL

_ORDER = ("Deployment", "RayCluster", "PodDisruptionBudget", "NetworkPolicy", "RoleBinding", "Role", "ServiceAccount")
_EVERY_SECONDS = 1.0


def delete(
    api: Api, namespace: str, name: str, tell: Callable[[str], None], sleep: Callable[[float], None] = time.sleep
) -> Iterator[tuple[str, str]]:
    """Kind and name of each object, once it is deleted. Doing it again deletes what is left."""
    for kind in _ORDER:
        for one in api.list(path_to(kind, namespace), labelSelector=f"{CLUSTER_LABEL}={name}"):
            if api.delete(path_to(kind, namespace, one["metadata"]["name"])):
                yield kind, one["metadata"]["name"]
        if kind == "Deployment":
            _wait_for_agent(api, namespace, name, tell, sleep)


def _wait_for_agent(
    api: Api, namespace: str, name: str, tell: Callable[[str], None], sleep: Callable[[float], None]
) -> None:
    until, said = time.monotonic() + AGENT_DRAIN_SECONDS + 15.0, False
    while api.list(path_to("Pod", namespace), labelSelector=f"{CLUSTER_LABEL}={name},{ROLE_LABEL}=agent"):
        if time.monotonic() > until:
            tell("warning: the agent's pod is still there, and is not waited for any longer")
            return
        if not said:
            tell(f"waiting until the agent has handed its jobs back, {AGENT_DRAIN_SECONDS} s at the most")
            said = True
        sleep(_EVERY_SECONDS)
