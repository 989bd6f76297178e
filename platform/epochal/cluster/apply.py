"""The objects of a cluster, applied: server-side apply, which leaves alone what is not a cluster spec's."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from epochal.cluster.api import Api
from epochal.cluster.api_errors import owners
from epochal.cluster.kinds import Manifest, path_of
from epochal.cluster.pod_template import PART_OF_LABEL
from epochal.errors import ConflictError, NotFoundError

SCALER = "epochal-agent"
"""The field manager of whoever sets how many pods a group has now: an agent, or ``epochal cluster scale``."""

_TRIES = 5
_OF_THE_SERVER = ("managedFields", "resourceVersion", "generation", "creationTimestamp", "uid")


@dataclass(frozen=True)
class Applied:
    """``what`` became of an object: ``created``, ``changed`` or ``unchanged``."""

    kind: str
    name: str
    what: str
    object: Manifest

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "name": self.name, "what": self.what, "object": self.object}


def apply(api: Api, objects: Sequence[Manifest], *, force: bool = False, dry_run: bool = False) -> Iterator[Applied]:
    """Apply one object after the other; what became of each, once it is done.

    Args:
        force: take fields over that somebody else has set.
        dry_run: the server checks and answers as if, and changes nothing.

    Raises:
        ConflictError: the cluster is part of something else, or somebody else has set a field; not with ``force``.
    """
    if not force:
        for ray_cluster in (one for one in objects if one["kind"] == "RayCluster"):
            _refuse_another_s(api, ray_cluster)
    for one in objects:
        before, after = _apply_one(api, one, force, dry_run)
        what = "created" if before is None else "unchanged" if _plain(before) == _plain(after) else "changed"
        yield Applied(one["kind"], one["metadata"]["name"], what, after)


def _refuse_another_s(api: Api, ray_cluster: Manifest) -> None:
    """A second release with the cluster's name would end the jobs of the first one."""
    before = api.find(path_of(ray_cluster))
    theirs, ours = (one and one["metadata"].get("labels", {}).get(PART_OF_LABEL) for one in (before, ray_cluster))
    if theirs and theirs != ours:
        name = ray_cluster["metadata"]["name"]
        message = f"the cluster {name} is part of {theirs}{f', and not of {ours}' if ours else ''}"
        raise ConflictError(
            message, "another name for this one (the chart's `cluster.name`), or --force, which takes it over"
        )


def with_sizes_of(manifest: Manifest, before: Manifest) -> Manifest:
    """The RayCluster with as many pods in each group as it has ``before``, within the group's new bounds.

    How many they are is the agent's to say. Groups are one list to Kubernetes, which has one owner: an apply without
    the numbers would set them back.
    """
    known = {group["groupName"]: group for group in before["spec"].get("workerGroupSpecs", ())}
    manifest = copy.deepcopy(manifest)
    for group in manifest["spec"]["workerGroupSpecs"]:
        if old := known.get(group["groupName"]):
            asked = old.get("replicas", group["replicas"])
            group["replicas"] = min(max(asked, group["minReplicas"]), group["maxReplicas"])
            if strategy := old.get("scaleStrategy"):
                group["scaleStrategy"] = strategy
    # Refused, and done again, where the agent sets another number in between.
    manifest["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"]
    return manifest


def _apply_one(api: Api, manifest: Manifest, force: bool, dry_run: bool) -> tuple[Manifest | None, Manifest]:
    """The object before and after. Again where it has changed since it was read."""
    path, is_sized = path_of(manifest), manifest["kind"] == "RayCluster"
    for left in reversed(range(_TRIES)):
        before = api.find(path)
        body = with_sizes_of(manifest, before) if is_sized and before is not None else manifest
        try:
            return before, api.apply(path, body, force=force, dry_run=dry_run)
        except NotFoundError:
            # Kubernetes looks up the role of a binding, which a dry run does not make.
            if not dry_run or manifest["kind"] != "RoleBinding":
                raise
            return before, manifest
        except ConflictError as error:
            who = owners(error)
            if not left or (who and not (is_sized and who == {SCALER})):
                raise
        if who:  # the numbers are those that it has set
            with suppress(ConflictError):
                return before, api.apply(path, body, force=True, dry_run=dry_run)
    raise AssertionError("unreachable")


def _plain(manifest: Manifest) -> Manifest:
    """Without what the server adds."""
    metadata = {name: value for name, value in manifest["metadata"].items() if name not in _OF_THE_SERVER}
    return {name: value for name, value in manifest.items() if name != "status"} | {"metadata": metadata}
