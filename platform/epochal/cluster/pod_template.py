"""What the pods of a cluster have in common: labels, volumes, variables, and what the ``restricted`` Pod Security
Standard asks of them and their containers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from epochal.cluster.kinds import Manifest
from epochal.cluster.spec import ClusterSpec, PodSize, SecretKey, WorkerGroup
from epochal.engine.ray_variables import SHARED
from epochal.units import Bytes

CLUSTER_LABEL = "epochal.io/cluster"
"""On every object of a cluster, with its name: what is listed, and who may talk to its Ray."""
ROLE_LABEL = "epochal.io/role"
PART_OF_LABEL = "app.kubernetes.io/part-of"
"""On every object of a cluster whose spec says what it is a part of."""

GCS_PORT, NODE_PORT, METRICS_PORT = 6379, 6380, 8080
SMALL_SHM = Bytes(512 * 2**20)
"""Of ``/dev/shm`` where nothing trains."""
_USER = 1000
_EPHEMERAL = Bytes(20 * 2**30)
"""Of ``/tmp``: Ray's logs and spilled objects."""
_SHARED_FOLDERS = ("server/storage", "datasets")
"""Of the storage root: jobs' folders, and datasets. In others are the server's store and MLflow's artifacts: a link
that code of a job left there would be followed by processes that may read more than it may."""


def labels(spec: ClusterSpec, role: str = "") -> dict[str, str]:
    found = {
        "app.kubernetes.io/name": "epochal",
        "app.kubernetes.io/instance": spec.name,
        "app.kubernetes.io/managed-by": "epochal",
        CLUSTER_LABEL: spec.name,
    }
    if spec.part_of is not None:
        found[PART_OF_LABEL] = spec.part_of
    return found | {ROLE_LABEL: role} if role else found


def template(spec: ClusterSpec, role: str, containers: Sequence[Manifest], shared_memory: Bytes) -> Manifest:
    """A pod of the cluster, by the restricted Pod Security Standard, with the storage and room of its own."""
    volumes = [
        {"name": "storage", "persistentVolumeClaim": {"claimName": spec.storage.claim}},
        scratch("tmp"),
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": quantity(shared_memory)}},
    ]
    return {
        "metadata": {"labels": labels(spec, role)},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": _USER,
                "runAsGroup": _USER,
                "fsGroup": _USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "imagePullSecrets": [{"name": name} for name in spec.image.pull_secrets],
            "containers": list(containers),
            "volumes": volumes,
        },
    }


def scratch(name: str) -> Manifest:
    return {"name": name, "emptyDir": {"sizeLimit": quantity(_EPHEMERAL)}}


def container(
    spec: ClusterSpec, name: str, size: PodSize, env: Sequence[Manifest], resources: Mapping[str, str] | None = None
) -> Manifest:
    """It may write to ``/tmp`` and ``/dev/shm`` alone; see ``storage``."""
    amounts = {"cpu": f"{size.cpus:g}", "memory": quantity(size.memory), **(resources or {})}
    limits = dict(amounts)
    if not isinstance(size, WorkerGroup):
        # With a quarter of a CPU and no more `ray start` takes over 30 s, and gives up: what nobody uses may be used.
        del limits["cpu"]
    return {
        "name": name,
        "image": spec.image.name,
        "imagePullPolicy": spec.image.pull_policy,
        "env": list(env),
        "resources": {"requests": amounts, "limits": limits},
        # Why it has ended, for `epochal cluster status`.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": "shm", "mountPath": "/dev/shm"}],
    }


def storage(spec: ClusterSpec) -> list[Manifest]:
    """The mounts of the storage root, as far as agents and workers need it."""
    path = spec.storage.path
    return [{"name": "storage", "mountPath": f"{path}/{one}", "subPath": one} for one in _SHARED_FOLDERS]


def listening(name: str, port: int) -> Manifest:
    """The ports of a Ray node, and its probes: a connection costs nothing. KubeRay's own start programs, and kill
    a node that is slow to start."""
    probe = {"tcpSocket": {"port": port}, "periodSeconds": 5, "timeoutSeconds": 5}
    return {
        "ports": [{"name": name, "containerPort": port}, {"name": "metrics", "containerPort": METRICS_PORT}],
        "startupProbe": probe | {"failureThreshold": 60},
        "readinessProbe": probe | {"failureThreshold": 3},
        "livenessProbe": probe | {"periodSeconds": 10, "failureThreshold": 12},
    }


def variables(spec: ClusterSpec, env: Mapping[str, str] | None = None) -> Iterator[Manifest]:
    """Of the agent, and of Ray's nodes: where the storage is, and MLflow."""
    known = {"EPOCHAL_HOME": spec.storage.path, "MLFLOW_TRACKING_URI": spec.tracking.url}
    yield from plain({**known, **(env or {})})
    for name, secret in (
        ("MLFLOW_TRACKING_USERNAME", spec.tracking.username),
        ("MLFLOW_TRACKING_PASSWORD", spec.tracking.password),
    ):
        if secret is not None:
            yield from_secret(name, secret)


def plain(env: Mapping[str, str]) -> Iterator[Manifest]:
    """These, and what every process of Ray needs."""
    for name, value in (SHARED | {"HOME": "/tmp", **env}).items():
        yield {"name": name, "value": value}


def ray_token(spec: ClusterSpec) -> list[Manifest]:
    """For those whose pods KubeRay does not make, which is what makes the Secret."""
    token = SecretKey(secret=spec.name, key="auth_token")
    return [{"name": "RAY_AUTH_MODE", "value": "token"}, from_secret("RAY_AUTH_TOKEN", token)]


def from_secret(name: str, value: SecretKey) -> Manifest:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": value.secret, "key": value.key}}}


def quantity(size: Bytes) -> str:
    """As Kubernetes writes it, exactly.

    >>> quantity(Bytes.parse("2GiB")), quantity(Bytes.parse("1500MB"))
    ('2Gi', '1500000000')
    """
    for unit, factor in (("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if int(size) % factor == 0:
            return f"{int(size) // factor}{unit}"
    return str(int(size))
