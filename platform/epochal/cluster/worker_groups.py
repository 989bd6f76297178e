"""The worker groups of a RayCluster, as its agent reads and scales them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from epochal.agent.worker_groups import Pods
from epochal.cluster.api import Api
from epochal.cluster.kinds import path_to
from epochal.cluster.manifests import IDLE_ANNOTATION
from epochal.cluster.scale import scale
from epochal.cluster.status import groups_of, pods_of, read_pods


class RayClusterGroups:
    """Of the RayCluster ``name`` in ``namespace``. For one thread."""

    def __init__(self, api: Api, namespace: str, name: str) -> None:
        self._api = api
        self._path = path_to("RayCluster", namespace, name)
        self._read: dict[str, Any] = {}

    def read(self) -> Sequence[Pods]:
        self._read = self._api.get(self._path)
        seen = read_pods(self._api, self._read)
        idle = json.loads(
            self._read["metadata"].get("annotations", {}).get(IDLE_ANNOTATION, "{}")
        )  # none of an older one
        found = []
        for part, group in zip(groups_of(seen), self._read["spec"].get("workerGroupSpecs", ()), strict=True):
            name = group["groupName"]
            pods = {
                pod["metadata"]["name"]: pod.get("status", {}).get("podIP")
                for pod in pods_of(seen, name)
                if not pod["metadata"].get("deletionTimestamp")
            }
            removed = frozenset(group.get("scaleStrategy", {}).get("workersToDelete", ()))
            sizes = {"least": part.least, "most": part.most, "asked": part.asked}
            found.append(
                Pods(
                    name,
                    _shape(group),
                    **sizes,
                    idle=float(idle.get(name, 600.0)),
                    pods=pods,
                    removed=removed,
                    waits=part.waits,
                )
            )
        return found

    def scale(self, group: Pods, asked: int, remove: Sequence[str]) -> None:
        scale(self._api, self._read, {group.name: asked}, {group.name: remove})


def _shape(group: Mapping[str, Any]) -> dict[str, float]:
    """What Ray will say that a node of it has, as its manifest has Ray started."""
    start = group.get("rayStartParams", {})
    names = {"CPU": "num-cpus", "GPU": "num-gpus", "memory": "memory"}
    return {name: float(start[told]) for name, told in names.items() if float(start.get(told, 0)) > 0}
