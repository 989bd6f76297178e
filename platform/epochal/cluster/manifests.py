"""A cluster spec to Kubernetes objects: a pure function, as ``epochal cluster render`` prints them.

Pods pass the ``restricted`` Pod Security Standard, and write to the storage root, ``/tmp`` and ``/dev/shm`` alone.
Passwords and tokens are referred to, never contained.
"""

from __future__ import annotations

import json
from hashlib import sha256

from epochal.cluster.kinds import Manifest
from epochal.cluster.pod_template import (
    CLUSTER_LABEL,
    GCS_PORT,
    METRICS_PORT,
    NODE_PORT,
    ROLE_LABEL,
    SMALL_SHM,
    container,
    from_secret,
    labels,
    listening,
    plain,
    ray_token,
    scratch,
    storage,
    template,
    variables,
)
from epochal.cluster.spec import ClusterSpec, PodSize, WorkerGroup
from epochal.units import Bytes

SPEC_ANNOTATION = "epochal.io/spec"
"""On every pod of Ray: a digest of what it and its cluster are made from, but for how many there are."""
IDLE_ANNOTATION = "epochal.io/idle-seconds"
"""On the RayCluster, as JSON: how long a node of each group stays without work, for the agent."""

RAY_VERSION = "2.60.0"
AGENT_DRAIN_SECONDS = 120
"""How long an agent that is to end has for saving the states of its jobs."""
WORKER_DRAIN_SECONDS = 60

_AGENTS_RAY = PodSize(cpus=0.1, memory=Bytes(2**30))
"""Of the agent's node of Ray, on which nothing runs."""
_ENDS_SOON = {
    # For so long it waits for a head that does not answer. Ray's own are 60, and the agent has left after two.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
    # It is asked to end once the agent has: nothing is left to be drained.
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
}
_HEARD = "/tmp/heard"
_HEARD_SECONDS = 15


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
    return {"name": name, "namespace": namespace, "labels": labels(spec)}


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
    node = container(spec, "ray-head", spec.head, list(variables(spec))) | listening("gcs-server", GCS_PORT)
    node["volumeMounts"] += storage(spec)
    # Nothing trains beside the GCS: a trial that takes all memory would end every job of the cluster.
    start = {"num-cpus": "0", "num-gpus": "0", "include-dashboard": "false", "metrics-export-port": str(METRICS_PORT)}
    return {
        "serviceType": "ClusterIP",
        "rayStartParams": start,
        "template": template(spec, "head", [node], SMALL_SHM),
    }


def _group(spec: ClusterSpec, group: WorkerGroup) -> Manifest:
    env = list(variables(spec, group.env))
    node = container(spec, "ray-worker", group, env, _counted(group)) | listening("node", NODE_PORT)
    node["volumeMounts"] += storage(spec)
    start = {
        # Ray would round a part of a CPU up, and take more than the pod has.
        "num-cpus": str(max(1, int(group.cpus))),
        "num-gpus": str(group.gpus),
        "memory": str(int(group.memory)),
        "node-manager-port": str(NODE_PORT),
        "metrics-export-port": str(METRICS_PORT),
    }
    node["envFrom"] = [{"secretRef": {"name": name}} for name in spec.secrets]
    pod = template(spec, "worker", [node], group.shared_memory)
    pod["metadata"]["labels"] = group.labels | pod["metadata"]["labels"]
    pod["spec"] |= {
        "terminationGracePeriodSeconds": WORKER_DRAIN_SECONDS,
        "nodeSelector": group.node_selector,
        "tolerations": [one.model_dump(mode="json", exclude_none=True) for one in group.tolerations],
    }
    return {
        "groupName": group.name,
        "labels": {"ray.io/market-type": "spot" if group.spot else "on-demand"},
        "rayStartParams": start,
        "template": pod,
    }


def _counted(group: WorkerGroup) -> dict[str, str]:
    counted = dict(group.resources) | ({group.gpu_resource: group.gpus} if group.gpus else {})
    return {name: str(count) for name, count in counted.items()}


def _agent(spec: ClusterSpec, namespace: str) -> Manifest:
    """The agent is a driver on a Ray node of its own, which has no resources. Whoever has Ray's token can have that
    node run code: it has a container of its own, with other processes, folders and variables than the agent's."""
    name = agent_name(spec)
    ray, agent = _agents_ray(spec), _agent_container(spec, namespace)
    pod = template(spec, "agent", [agent], SMALL_SHM)
    # It is there before the agent starts, and until the agent has ended.
    pod["spec"]["initContainers"] = [ray | {"restartPolicy": "Always"}]
    pod["spec"]["volumes"] += [scratch("ray"), scratch("agent"), _ACCOUNT]
    pod["spec"] |= {"serviceAccountName": name, "terminationGracePeriodSeconds": AGENT_DRAIN_SECONDS}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(spec, namespace, name),
        "spec": {
            "replicas": 1,
            # Two agents of one name would take the jobs of each other.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {CLUSTER_LABEL: spec.name, ROLE_LABEL: "agent"}},
            "template": pod,
        },
    }


def _agents_ray(spec: ClusterSpec) -> Manifest:
    env = [*plain(_ENDS_SOON), *ray_token(spec)]
    node = container(spec, "ray", _AGENTS_RAY, env) | listening("node", NODE_PORT)
    node["volumeMounts"].append(_RAY_MOUNT)
    where = f"--node-manager-port={NODE_PORT} --metrics-export-port={METRICS_PORT}"
    node["command"] = _with_head(spec, f"ray start --block --address={_gcs(spec)} --num-cpus=0 --num-gpus=0 {where}")
    return node


def _agent_container(spec: ClusterSpec, namespace: str) -> Manifest:
    known = {
        "EPOCHAL_RAY_ADDRESS": _gcs(spec),
        "EPOCHAL_SERVER": spec.server.url,
        "EPOCHAL_RAYCLUSTER": f"{namespace}/{spec.name}",
    }
    if spec.tracking.page is not None:
        known["EPOCHAL_TRACKING_PAGE"] = spec.tracking.page
    env = [*variables(spec, known), *ray_token(spec), from_secret("EPOCHAL_TOKEN", spec.server.token)]
    agent = container(spec, "agent", spec.agent, env)
    warm = "" if spec.agent.warm is None else f" --warm={spec.agent.warm}"
    agent["command"] = _with_head(spec, f"epochal agent --name={spec.name} --heard-file={_HEARD}{warm}")
    agent["readinessProbe"] = {"exec": {"command": ["sh", "-c", _IS_HEARD]}, "periodSeconds": 5, "timeoutSeconds": 5}
    shm = {"name": "shm", "mountPath": "/dev/shm"}
    own = [{"name": "agent", "mountPath": "/tmp"}, {"name": "account", "mountPath": _ACCOUNT_FOLDER}]
    agent["volumeMounts"] = [*own, _RAY_MOUNT, shm, *storage(spec)]
    return agent


def _gcs(spec: ClusterSpec) -> str:
    return f"{spec.name}-head-svc:{GCS_PORT}"


def _with_head(spec: ClusterSpec, command: str) -> list[str]:
    """The command once Ray's head listens. Without it both containers of the pod would end again and again, and
    Kubernetes has them wait longer each time."""
    known = f"/dev/tcp/{_gcs(spec).replace(':', '/')}"
    awaited = f"until (exec 3<>{known}) 2>/dev/null; do sleep 1; done"
    return ["bash", "-c", f"trap exit TERM; echo waiting for {_gcs(spec)}; {awaited}; exec {command}"]


_IS_HEARD = f"""\
find {_HEARD} -newermt '{_HEARD_SECONDS} seconds ago' 2>/dev/null | grep -q . && exit
echo "the server has not heard of it for {_HEARD_SECONDS} s: kubectl logs says why"
exit 1
"""

_RAY_MOUNT = {"name": "ray", "mountPath": "/tmp/ray"}
"""Where Ray's node has its sockets."""

_ACCOUNT_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
_ACCOUNT = {
    "name": "account",
    "projected": {
        "defaultMode": 0o440,
        "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
        ],
    },
}
"""As Kubernetes itself would mount it, in every container."""
