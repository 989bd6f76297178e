"""How many pods a worker group has: read and set on a RayCluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from epochal.cluster.api import Api
from epochal.cluster.apply import SCALER
from epochal.cluster.kinds import Manifest, path_to
from epochal.errors import NotFoundError, UsageError


def scale(api: Api, ray_cluster: Manifest, sizes: Mapping[str, int], remove: Mapping[str, Sequence[str]]) -> Manifest:
    """Set how many pods groups have; the RayCluster as it is then.

    Args:
        remove: by group the pods that go where it has fewer; without them KubeRay picks some.

    Raises:
        NotFoundError: it has no group of that name.
        UsageError: a number is outside of its group's bounds.
        ConflictError: its groups have changed since it was read.
    """
    operations: list[Manifest] = []
    groups = ray_cluster["spec"].get("workerGroupSpecs", ())
    known = {group["groupName"]: index for index, group in enumerate(groups)}
    for name, count in sizes.items():
        if name not in known:
            raise NotFoundError("worker group", name, tuple(known))
        index = known[name]
        _check(groups[index], count)
        at = f"/spec/workerGroupSpecs/{index}"
        operations.append({"op": "test", "path": f"{at}/groupName", "value": name})
        if "replicas" in groups[index]:  # another number, set since it was read, is not to be overwritten
            operations.append({"op": "test", "path": f"{at}/replicas", "value": groups[index]["replicas"]})
        operations.append({"op": "add", "path": f"{at}/replicas", "value": count})
        strategy = {"workersToDelete": list(remove.get(name, ()))}
        operations.append({"op": "add", "path": f"{at}/scaleStrategy", "value": strategy})
    metadata = ray_cluster["metadata"]
    return api.patch(path_to("RayCluster", metadata["namespace"], metadata["name"]), operations, SCALER)


def _check(group: Mapping[str, Any], count: int) -> None:
    least, most = int(group.get("minReplicas", 0)), int(group.get("maxReplicas", 0))
    if not least <= count <= most:
        message = f"the group {group['groupName']} has {least} to {most} pods, not {count}"
        raise UsageError(message, "change min and max in the cluster spec, and apply it")
