"""The cluster spec: what an agent and the Ray cluster that it feeds are, on Kubernetes."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from epochal.spec.job import VariableName
from epochal.spec.section import Section
from epochal.units import Bytes, Duration

_NAME = r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"
_OBJECT = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"


def _matching(pattern: str, words: str) -> tuple[AfterValidator, Any]:
    """Text that matches, or what was expected in words."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"expected {words}")
        return text

    return AfterValidator(check), Field(json_schema_extra={"pattern": pattern})


Name = Annotated[str, *_matching(_NAME, "lower-case letters, digits and dashes after a letter, at most 40 in all")]
"""Of what others are named after: KubeRay allows a RayCluster 53 characters."""
ObjectName = Annotated[str, *_matching(_OBJECT, "the name of an object: lower-case letters, digits, dashes and dots")]
Url = Annotated[str, *_matching(r"^https?://[^\s]+$", "a URL such as http://epochal-server:8700")]
LabelValue = Annotated[
    str, *_matching(r"^[a-zA-Z0-9]([-_.a-zA-Z0-9]{0,61}[a-zA-Z0-9])?$", "at most 63 letters, digits, dashes and dots")
]
Labels = dict[Annotated[str, Field(min_length=1, max_length=317)], Annotated[str, Field(max_length=63)]]


class Image(Section):
    """The container image of every pod: agent and Ray nodes alike."""

    name: Annotated[str, Field(min_length=1, max_length=500, examples=["registry.example.com/epochal:0.1.0"])]
    """With its tag or digest; a moving tag such as `latest` is refused."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When a node asks the registry for it."""
    pull_secrets: list[ObjectName] = []
    """Secrets with the registry's credentials."""


class SecretKey(Section):
    """A value in a Secret of the namespace."""

    secret: ObjectName
    """The Secret's name."""
    key: Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]{1,253}$")]
    """The key in it."""


class Server(Section):
    """The Epochal server whose jobs this cluster runs."""

    url: Url
    """Its address as the agent's pod sees it; the agent connects outwards only."""
    token: SecretKey
    """A token of the role `agent`."""


class Tracking(Section):
    """The MLflow server that records the runs."""

    url: Url
    """Its address as the pods see it."""
    page: Url | None = None
    """Its address as people's browsers see it, which links to runs begin with; default: `url`."""
    username: SecretKey | None = None
    """Where MLflow asks for one."""
    password: SecretKey | None = None


class Storage(Section):
    """The storage root, which every pod mounts: checkpoints, spools and models."""

    claim: ObjectName
    """A PersistentVolumeClaim with access mode ReadWriteMany."""
    path: Annotated[str, Field(pattern=r"^/[^\s]+$")] = "/var/lib/epochal"
    """Where its folders `server/storage` and `datasets` are mounted, under these names."""


class PodSize(Section):
    """What a pod reserves."""

    cpus: Annotated[float, Field(gt=0, le=4096, allow_inf_nan=False)] = 1.0
    """CPUs, and more where nobody else uses them."""
    memory: Bytes = Bytes(2 * 2**30)
    """Memory, which is also the most that it gets."""


class Toleration(Section):
    """A taint of nodes that the group's pods may stand on all the same."""

    key: Annotated[str, Field(max_length=317)] | None = None
    """The taint's key; with `operator: Exists` and no key every taint is tolerated."""
    operator: Literal["Exists", "Equal"] = "Exists"
    value: Annotated[str, Field(max_length=63)] | None = None
    """For `operator: Equal`."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Default: each."""


class WorkerGroup(PodSize):
    """Nodes of one shape. A pod is a Ray node, and workers of jobs share it."""

    name: Name
    """Of its pods, and in messages."""
    min: Annotated[int, Field(ge=0, le=10_000)] = 1
    """So many pods stay, also without work."""
    max: Annotated[int, Field(ge=1, le=10_000)] = 1
    """At most so many; beyond `min` they start for jobs that wait, and go after `idle`."""
    cpus: Annotated[float, Field(ge=1, le=4096, allow_inf_nan=False)] = 1.0
    """CPUs, which are also the most that a pod gets. Ray counts whole ones of a node; jobs may ask for parts of one."""
    memory: Bytes = Bytes(8 * 2**30)
    """Memory, that of `/dev/shm` included."""
    gpus: Annotated[int, Field(ge=0, le=64)] = 0
    """GPUs of a pod."""
    gpu_resource: Annotated[str, Field(min_length=1, max_length=317)] = "nvidia.com/gpu"
    """What the device plugin calls them."""
    shared_memory: Bytes = Bytes(2 * 2**30)
    """Of `/dev/shm`, for data loaders, NCCL and Ray's object store; it counts as the pod's memory."""
    idle: Duration = Duration(600.0)
    """How long a pod beyond `min` stays without work."""
    spot: bool = False
    """Its nodes may be taken away at any time: told to Ray, and shown."""
    node_selector: Labels = {}
    """Labels that a node must have."""
    labels: Labels = {}
    """Labels of the pods."""
    tolerations: list[Toleration] = []
    resources: dict[Annotated[str, Field(min_length=1, max_length=317)], Annotated[int, Field(ge=1)]] = {}
    """More resources of a pod, such as `rdma/hca: 1`."""
    env: dict[VariableName, str] = {}
    """Variables of its nodes, such as `NCCL_SOCKET_IFNAME`. Not for secrets."""


class Agent(PodSize):
    """The process that leases jobs and runs them on this cluster. Its own Ray node takes 0.1 CPUs and 1 GiB more."""

    warm: Annotated[int, Field(ge=0, le=64)] | None = None
    """Warm workers a node keeps, 0.35 GiB each; default: its CPUs, at most 4."""


class ClusterSpec(Section):
    """What one Ray cluster and its agent are made of."""

    version: Literal[1]
    """The version of this format."""
    name: Name
    """Of the RayCluster, and of the agent among all agents of the server."""
    part_of: LabelValue | None = None
    """What it belongs to, such as a release: `apply --prune` and `delete --part-of` find its clusters by that."""
    image: Image
    server: Server
    tracking: Tracking
    storage: Storage
    head: PodSize = PodSize()
    """The Ray head, on which nothing trains."""
    agent: Agent = Agent()
    secrets: list[ObjectName] = []
    """Secrets whose keys are variables of the worker nodes, which jobs name under their `secrets`."""
    groups: Annotated[list[WorkerGroup], Field(min_length=1, max_length=50)]
    """Worker groups: pods of one shape each."""
