"""How a cluster stands: its head, its agent and its worker groups, and what keeps those that are missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from epochal.cluster.api import Api
from epochal.cluster.kinds import Manifest, path_to
from epochal.cluster.manifests import SPEC_ANNOTATION
from epochal.cluster.pod_template import CLUSTER_LABEL, ROLE_LABEL
from epochal.cluster.pods import (
    Warnings,
    is_ready,
    newest_warnings,
    why_not_made,
    why_not_ready,
    with_remedy,
)
from epochal.errors import NotFoundError

GROUP_LABEL = "ray.io/group"


@dataclass(frozen=True)
class Part:
    """Pods of one kind: so many are asked for, so many are ready, and why the others are not."""

    name: str
    asked: int
    ready: int
    least: int = 1
    most: int = 1
    waits: tuple[str, ...] = ()

    @property
    def is_ready(self) -> bool:
        return self.ready >= self.asked


@dataclass(frozen=True)
class ClusterStatus:
    """A cluster as Kubernetes tells of it. ``notes``: what does not keep it from running, and should be known."""

    name: str
    namespace: str
    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()

    @property
    def is_ready(self) -> bool:
        return all(part.is_ready for part in self.parts)

    @property
    def waits(self) -> tuple[str, ...]:
        return tuple(f"{part.name}: {text}" for part in self.parts for text in part.waits)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ready": self.is_ready}


@dataclass(frozen=True)
class Seen:
    """What the API server tells of a cluster, read at one time."""

    ray_cluster: Manifest
    agent: Manifest | None
    pods: Sequence[Manifest]
    warnings: Warnings = field(default_factory=dict)


def read(api: Api, namespace: str, name: str) -> Seen:
    """
    Raises:
        NotFoundError: there is no such cluster in the namespace.
    """
    ray_cluster = api.find(path_to("RayCluster", namespace, name))
    if ray_cluster is None:
        known = names(api, namespace)
        hint = "" if known else f"the namespace {namespace} has none; -n names another"
        raise NotFoundError("cluster", name, known, hint)
    return read_pods(api, ray_cluster, api.find(path_to("Deployment", namespace, f"{name}-agent")))


def read_pods(api: Api, ray_cluster: Manifest, agent: Manifest | None = None) -> Seen:
    """All that may be read by an agent, which does not look at itself."""
    namespace, name = ray_cluster["metadata"]["namespace"], ray_cluster["metadata"]["name"]
    pods = api.list(path_to("Pod", namespace), labelSelector=f"{CLUSTER_LABEL}={name}")
    events = api.list(path_to("Event", namespace), fieldSelector="type=Warning")
    return Seen(ray_cluster, agent, pods, newest_warnings(events))


def names(api: Api, namespace: str) -> tuple[str, ...]:
    """Of the clusters there."""
    found = api.list(path_to("RayCluster", namespace), labelSelector=CLUSTER_LABEL)
    return tuple(sorted(str(one["metadata"]["name"]) for one in found))


def status_of(seen: Seen) -> ClusterStatus:
    """A pure function."""
    metadata = seen.ray_cluster["metadata"]
    head = [pod for pod in seen.pods if _role(pod) == "head"]
    parts = [_part("head", 1, head, seen), _agent(seen), *groups_of(seen)]
    return ClusterStatus(metadata["name"], metadata["namespace"], tuple(parts), tuple(_notes(seen)))


def groups_of(seen: Seen) -> Iterator[Part]:
    """The worker groups, as parts named ``group NAME``."""
    for group in seen.ray_cluster["spec"].get("workerGroupSpecs", ()):
        least, most = int(group.get("minReplicas", 0)), int(group.get("maxReplicas", 0))
        asked = min(max(int(group.get("replicas", least)), least), most)
        pods = pods_of(seen, group["groupName"])
        yield _part(f"group {group['groupName']}", asked, pods, seen, (least, most))


def pods_of(seen: Seen, group: str) -> list[Manifest]:
    return [pod for pod in seen.pods if pod["metadata"].get("labels", {}).get(GROUP_LABEL) == group]


def _part(
    name: str,
    asked: int,
    pods: Sequence[Manifest],
    seen: Seen,
    bounds: tuple[int, int] = (1, 1),
    owner: Manifest | None = None,
) -> Part:
    """``owner``: who makes its pods, where that is not the RayCluster."""
    wanted = _digest(seen.ray_cluster["spec"]["headGroupSpec"]["template"])
    old = [pod for pod in pods if _role(pod) != "agent" and _digest(pod) != wanted]
    ready = sum(is_ready(pod) for pod in pods if pod not in old)
    reasons = ["it is of the spec before, and is made anew" for _ in old]
    reasons += [why for pod in pods if pod not in old and (why := why_not_ready(pod, seen.warnings))]
    if asked > len(pods):
        reasons += [_why_missing(seen, owner or seen.ray_cluster)] * (asked - len(pods))
    waits = tuple(_counted(reasons, asked)) if ready < asked else ()
    return Part(name, asked, ready, *bounds, waits)


def _counted(reasons: Iterable[str], asked: int) -> Iterator[str]:
    """
    >>> list(_counted(["it starts", "it starts"], 3))
    ['2 of 3 pods: it starts']
    """
    for why, count in Counter(reasons).most_common():
        yield f"{count} of {asked} pod{'s' if asked > 1 else ''}: {why}"


def _why_missing(seen: Seen, owner: Manifest) -> str:
    """Why there is no pod at all: what its ``owner``'s controller could not do, from its condition or its event."""
    if why := why_not_made(owner):
        return f"it cannot be made: {why}"
    if told := seen.warnings.get(str(owner["metadata"].get("uid"))):
        return with_remedy(f"it cannot be made: {told}")
    if owner is seen.ray_cluster and not seen.ray_cluster.get("status"):
        return "KubeRay has not seen the RayCluster yet: does its operator run, and watch this namespace?"
    return "it is not made yet"


def _agent(seen: Seen) -> Part:
    pods = [pod for pod in seen.pods if _role(pod) == "agent"]
    if seen.agent is None:
        return Part("agent", 1, 0, waits=("its Deployment is not there: `epochal cluster apply` makes it",))
    wanted = int(seen.agent.get("spec", {}).get("replicas", 1))
    # Of a Deployment that is rolled out the pods of before count no more.
    is_old = seen.agent.get("status", {}).get("observedGeneration", 0) < seen.agent["metadata"].get("generation", 0)
    part = _part("agent", wanted, pods, seen, owner=seen.agent)
    if is_old or int(seen.agent.get("status", {}).get("updatedReplicas", 0)) < wanted:
        return Part("agent", wanted, 0, waits=part.waits or ("it is made anew",))
    return part


def _notes(seen: Seen) -> Iterator[str]:
    groups = {group["groupName"] for group in seen.ray_cluster["spec"].get("workerGroupSpecs", ())}
    left = Counter(
        group
        for pod in seen.pods
        if _role(pod) == "worker" and (group := pod["metadata"]["labels"].get(GROUP_LABEL)) not in groups
    )
    for group, count in left.items():
        yield f"{count} pods of the group {group}, which the spec does not have any more"
    images = {container["image"] for pod in seen.pods for container in pod.get("spec", {}).get("containers", ())}
    if len(images) > 1:
        yield f"its pods have several images: {', '.join(sorted(images))}"


def _digest(pod: Manifest) -> str:
    """Of the spec that it is made from; the template of a RayCluster that is not ours may have no metadata at all."""
    return str(pod.get("metadata", {}).get("annotations", {}).get(SPEC_ANNOTATION, ""))


def _role(pod: Manifest) -> str:
    return str(pod["metadata"].get("labels", {}).get(ROLE_LABEL, ""))
