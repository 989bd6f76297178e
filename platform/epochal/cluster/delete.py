"""Deletes a cluster: its agent first, so that its jobs save their state and go back to the queue."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from epochal.cluster.api import Api
from epochal.cluster.kinds import path_to
from epochal.cluster.manifests import AGENT_DRAIN_SECONDS, WORKER_DRAIN_SECONDS
from epochal.cluster.pod_template import CLUSTER_LABEL, PART_OF_LABEL, ROLE_LABEL

_ORDER = ("Deployment", "RayCluster", "PodDisruptionBudget", "NetworkPolicy", "RoleBinding", "Role", "ServiceAccount")
_EVERY_SECONDS = 1.0
_AGENT_SECONDS = AGENT_DRAIN_SECONDS + 15.0
_RAY_SECONDS = WORKER_DRAIN_SECONDS + 60.0


def parts_of(api: Api, namespace: str, part_of: str) -> tuple[str, ...]:
    """The names of the clusters that are ``part_of`` something, also of those of which little is left."""
    # What is made first and deleted last: a deletion that was broken off may have left no RayCluster.
    selector = f"{CLUSTER_LABEL},{PART_OF_LABEL}={part_of}"
    found = api.list(path_to("ServiceAccount", namespace), labelSelector=selector)
    return tuple(sorted(str(one["metadata"]["labels"][CLUSTER_LABEL]) for one in found))


def delete(api: Api, namespace: str, name: str, tell: Callable[[str], None]) -> Iterator[tuple[str, str]]:
    """Kind and name of each object, once it is deleted. Doing it again deletes what is left.

    Ray's pods are waited for: a cluster of the same name, applied at once, would be taken for the one that goes.
    """

    def until_gone(seconds: float, what: str, *sought: tuple[str, str]) -> None:
        deadline, said = time.monotonic() + seconds, False
        while any(api.list(path_to(kind, namespace), labelSelector=label) for kind, label in sought):
            if time.monotonic() > deadline:
                tell(f"warning: not within {seconds:g} s: {what}; it is not waited for any longer")
                return
            if not said:
                tell(f"waiting until {what}, {seconds:g} s at the most")
                said = True
            time.sleep(_EVERY_SECONDS)

    own = f"{CLUSTER_LABEL}={name}"
    for kind in _ORDER:
        for one in api.list(path_to(kind, namespace), labelSelector=own):
            if api.delete(path_to(kind, namespace, one["metadata"]["name"])):
                yield kind, one["metadata"]["name"]
        if kind == "Deployment":
            until_gone(_AGENT_SECONDS, "the agent has handed its jobs back", ("Pod", f"{own},{ROLE_LABEL}=agent"))
        elif kind == "RayCluster":
            until_gone(_RAY_SECONDS, "Ray's pods have gone", (kind, own), ("Pod", own))
