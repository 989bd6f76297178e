"""A cluster spec to Kubernetes objects: a pure function, as ``epochal cluster render`` prints them.

Pods pass the ``restricted`` Pod Security Standard, and write to the storage root, ``/tmp`` and ``/dev/shm`` alone.
Passwords and tokens are referred to, never contained.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256

from epochal.cluster.kinds import Manifest
from epochal.cluster.spec import ClusterSpec, PodSize, SecretKey, WorkerGroup
from epochal.engine.ray_variables import SHARED
from epochal.units import Bytes

CLUSTER_LABEL = "epochal.io/cluster"
"""On every object of a cluster, with its name: what is listed, and who may talk to its Ray."""
ROLE_LABEL = "epochal.io/role"
SPEC_ANNOTATION = "epochal.io/spec"
"""On every pod of Ray: a digest of what it and its cluster are made from, but for how many there are."""
IDLE_ANNOTATION = "epochal.io/idle-seconds"
"""On the RayCluster, as JSON: how long a node of each group stays without work, for the agent."""

RAY_VERSION = "2.60.0"
GCS_PORT, NODE_PORT, METRICS_PORT = 6379, 6380, 8080
USER = 1000
AGENT_DRAIN_SECONDS = 120
"""How long an agent that is to end has for saving the states of its jobs."""
WORKER_DRAIN_SECONDS = 60

_EPHEMERAL = Bytes(20 * 2**30)
"""Of ``/tmp``: Ray's logs and spilled objects."""
_HEAD_SHM = Bytes(512 * 2**20)


def manifests(spec: ClusterSpec, namespace: str) -> list[Manifest]:
    """All objects of the cluster, in the order in which they are applied."""
    return [
        _service_account(spec, namespace),
        _role(spec, namespace),
        _role_binding(spec, namespace),
        _network_policy(spec, namespace),
        _disruption_budget(spec, namespace),
        _ray_cluster(spec, namespace),
        _agent(spec, namespace),
    ]


def agent_name(spec: ClusterSpec) -> str:
    return f"{spec.name}-agent"


def _metadata(spec: ClusterSpec, namespace: str, name: str) -> Manifest:
    return {"name": name, "namespace": namespace, "labels": _labels(spec)}


def _labels(spec: ClusterSpec, role: str = "") -> dict[str, str]:
    labels = {
        "app.kubernetes.io/name": "epochal",
        "app.kubernetes.io/instance": spec.name,
        "app.kubernetes.io/managed-by": "epochal",
        CLUSTER_LABEL: spec.name,
    }
    return labels | {ROLE_LABEL: role} if role else labels


def _service_account(spec: ClusterSpec, namespace: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _metadata(spec, namespace, agent_name(spec)),
        "automountServiceAccountToken": False,
    }


def _role(spec: ClusterSpec, namespace: str) -> Manifest:
    """What the agent may do: set how many pods its worker groups have, and read why one does not start."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": _metadata(spec, namespace, agent_name(spec)),
        "rules": [
            {
                "apiGroups": ["ray.io"],
                "resources": ["rayclusters"],
                "resourceNames": [spec.name],
                "verbs": ["get", "patch"],
            },
            {"apiGroups": [""], "resources": ["pods", "events"], "verbs": ["list"]},
        ],
    }


def _role_binding(spec: ClusterSpec, namespace: str) -> Manifest:
    name = agent_name(spec)
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": _metadata(spec, namespace, name),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    }


def _network_policy(spec: ClusterSpec, namespace: str) -> Manifest:
    """Ray's ports are for Ray's own nodes, of which the agent is one: whoever reaches them runs code there."""
    own = {"matchLabels": {CLUSTER_LABEL: spec.name}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(spec, namespace, spec.name),
        "spec": {
            "podSelector": own,
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": own}]}],
        },
    }


def _disruption_budget(spec: ClusterSpec, namespace: str) -> Manifest:
    """Of those that stay all but one are there while nodes are drained. `maxUnavailable` would keep all of them: for it
    Kubernetes has to read a number of pods, and a RayCluster has none."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(spec, namespace, f"{spec.name}-workers"),
        "spec": {
            "minAvailable": max(0, sum(group.min for group in spec.groups) - 1),
            "selector": {"matchLabels": {CLUSTER_LABEL: spec.name, ROLE_LABEL: "worker"}},
        },
    }


def _ray_cluster(spec: ClusterSpec, namespace: str) -> Manifest:
    metadata = _metadata(spec, namespace, spec.name)
    metadata["annotations"] = {IDLE_ANNOTATION: json.dumps({one.name: one.idle.seconds for one in spec.groups})}
    head, groups = _head(spec), [_group(spec, group) for group in spec.groups]
    digest = sha256(json.dumps([head, groups], sort_keys=True).encode()).hexdigest()[:16]
    for part in (head, *groups):
        part["template"]["metadata"]["annotations"] = {SPEC_ANNOTATION: digest}
    for group, made in zip(spec.groups, groups, strict=True):
        made.update(replicas=group.min, minReplicas=group.min, maxReplicas=group.max)
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": metadata,
        "spec": {
            "rayVersion": RAY_VERSION,
            "authOptions": {"mode": "token"},
            "enableInTreeAutoscaling": False,
            # Else the pods of before would stay, and a job have workers of two versions.
            "upgradeStrategy": {"type": "Recreate"},
            "headGroupSpec": head,
            "workerGroupSpecs": groups,
        },
    }


def _head(spec: ClusterSpec) -> Manifest:
    container = _container(spec, "ray-head", spec.head) | _listening("gcs-server", GCS_PORT)
    # Nothing trains beside the GCS: a trial that takes all memory would end every job of the cluster.
    start = {"num-cpus": "0", "num-gpus": "0", "include-dashboard": "false", "metrics-export-port": str(METRICS_PORT)}
    return {
        "serviceType": "ClusterIP",
        "rayStartParams": start,
        "template": _template(spec, "head", container, _HEAD_SHM),
    }


def _group(spec: ClusterSpec, group: WorkerGroup) -> Manifest:
    container = _container(spec, "ray-worker", group, _counted(group), group.env) | _listening("node", NODE_PORT)
    start = {
        # Ray would round a part of a CPU up, and take more than the pod has.
        "num-cpus": str(max(1, int(group.cpus))),
        "num-gpus": str(group.gpus),
        "memory": str(int(group.memory)),
        "node-manager-port": str(NODE_PORT),
        "metrics-export-port": str(METRICS_PORT),
    }
    container["envFrom"] = [{"secretRef": {"name": name}} for name in spec.secrets]
    template = _template(spec, "worker", container, group.shared_memory, group.labels)
    template["spec"] |= {
        "terminationGracePeriodSeconds": WORKER_DRAIN_SECONDS,
        "nodeSelector": group.node_selector,
        "tolerations": [one.model_dump(mode="json", exclude_none=True) for one in group.tolerations],
    }
    return {
        "groupName": group.name,
        "labels": {"ray.io/market-type": "spot" if group.spot else "on-demand"},
        "rayStartParams": start,
        "template": template,
    }


def _counted(group: WorkerGroup) -> dict[str, str]:
    counted = dict(group.resources) | ({group.gpu_resource: group.gpus} if group.gpus else {})
    return {name: str(count) for name, count in counted.items()}


def _agent(spec: ClusterSpec, namespace: str) -> Manifest:
    name = agent_name(spec)
    container = _container(spec, "agent", spec.agent)
    head = f"{spec.name}-head-svc:{GCS_PORT}"
    container["command"] = ["sh", "-ec", _AGENT_COMMAND]
    container["env"] += [
        {"name": "EPOCHAL_RAY_ADDRESS", "value": head},
        {"name": "EPOCHAL_SERVER", "value": spec.server.url},
        {"name": "EPOCHAL_AGENT_NAME", "value": spec.name},
        {"name": "EPOCHAL_RAYCLUSTER", "value": f"{namespace}/{spec.name}"},
        {"name": "RAY_AUTH_MODE", "value": "token"},
        _from_secret("RAY_AUTH_TOKEN", SecretKey(secret=spec.name, key="auth_token")),  # KubeRay makes it
        _from_secret("EPOCHAL_TOKEN", spec.server.token),
    ]
    if spec.tracking.page is not None:
        container["env"].append({"name": "EPOCHAL_TRACKING_PAGE", "value": spec.tracking.page})
    if spec.agent.warm is not None:
        container["env"].append({"name": "EPOCHAL_WARM", "value": str(spec.agent.warm)})
    template = _template(spec, "agent", container, _HEAD_SHM)
    template["spec"] |= {
        "serviceAccountName": name,
        "automountServiceAccountToken": True,
        "terminationGracePeriodSeconds": AGENT_DRAIN_SECONDS,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(spec, namespace, name),
        "spec": {
            "replicas": 1,
            # Two agents of one name would take the jobs of each other.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {CLUSTER_LABEL: spec.name, ROLE_LABEL: "agent"}},
            "template": template,
        },
    }


_AGENT_COMMAND = """\
ray start --address="$EPOCHAL_RAY_ADDRESS" --num-cpus=0 --num-gpus=0 --disable-usage-stats
exec epochal agent --name "$EPOCHAL_AGENT_NAME" --join "$EPOCHAL_RAY_ADDRESS" ${EPOCHAL_WARM:+--warm "$EPOCHAL_WARM"}
"""
"""The agent is a driver on a Ray node of its own, which has no resources. It ends where that node is lost, and the
container begins anew."""


def _template(
    spec: ClusterSpec, role: str, container: Manifest, shared_memory: Bytes, labels: Mapping[str, str] | None = None
) -> Manifest:
    volumes = [
        {"name": "storage", "persistentVolumeClaim": {"claimName": spec.storage.claim}},
        {"name": "tmp", "emptyDir": {"sizeLimit": _quantity(_EPHEMERAL)}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _quantity(shared_memory)}},
    ]
    return {
        "metadata": {"labels": {**(labels or {}), **_labels(spec, role)}},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "imagePullSecrets": [{"name": name} for name in spec.image.pull_secrets],
            "containers": [container],
            "volumes": volumes,
        },
    }


def _container(
    spec: ClusterSpec,
    name: str,
    size: PodSize,
    resources: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
) -> Manifest:
    amounts = {"cpu": f"{size.cpus:g}", "memory": _quantity(size.memory), **(resources or {})}
    limits = dict(amounts)
    if not isinstance(size, WorkerGroup):
        # With a quarter of a CPU and no more `ray start` takes over 30 s, and gives up: what nobody uses may be used.
        del limits["cpu"]
    return {
        "name": name,
        "image": spec.image.name,
        "imagePullPolicy": spec.image.pull_policy,
        "env": list(_variables(spec, env or {})),
        "resources": {"requests": amounts, "limits": limits},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # What it says last is then in the pod's status, where `epochal cluster status` finds it.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "storage", "mountPath": spec.storage.path},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    }


def _listening(name: str, port: int) -> Manifest:
    """The ports of a Ray node, and its probes: a connection costs nothing. KubeRay's own start programs, and kill
    a node that is slow to start."""
    probe = {"tcpSocket": {"port": port}, "periodSeconds": 5, "timeoutSeconds": 5}
    return {
        "ports": [{"name": name, "containerPort": port}, {"name": "metrics", "containerPort": METRICS_PORT}],
        "startupProbe": probe | {"failureThreshold": 60},
        "readinessProbe": probe | {"failureThreshold": 3},
        "livenessProbe": probe | {"periodSeconds": 10, "failureThreshold": 12},
    }


def _variables(spec: ClusterSpec, env: Mapping[str, str]) -> Iterator[Manifest]:
    values = SHARED | {
        "HOME": "/tmp",
        "EPOCHAL_HOME": spec.storage.path,
        "MLFLOW_TRACKING_URI": spec.tracking.url,
        **env,
    }
    for name, value in values.items():
        yield {"name": name, "value": value}
    for name, secret in (
        ("MLFLOW_TRACKING_USERNAME", spec.tracking.username),
        ("MLFLOW_TRACKING_PASSWORD", spec.tracking.password),
    ):
        if secret is not None:
            yield _from_secret(name, secret)


def _from_secret(name: str, value: SecretKey) -> Manifest:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": value.secret, "key": value.key}}}


def _quantity(size: Bytes) -> str:
    """As Kubernetes writes it, exactly.

    >>> _quantity(Bytes.parse("2GiB")), _quantity(Bytes.parse("1500MB"))
    ('2Gi', '1500000000')
    """
    for unit, factor in (("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if int(size) % factor == 0:
            return f"{int(size) // factor}{unit}"
    return str(int(size))
