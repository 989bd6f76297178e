"""The objects of the repository's cluster specs: valid for Kubernetes and KubeRay, and safe."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator

from epochal.cluster.load import load_cluster_spec
from epochal.cluster.manifests import RAY_VERSION, manifests

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "cluster").glob("*.yaml"))
RAY_CLUSTER = Draft202012Validator(json.loads((Path(__file__).parent / "raycluster.json").read_text()))


@pytest.fixture(params=SPECS, ids=lambda path: path.stem)
def objects(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return manifests(load_cluster_spec(request.param), "training")


def pods(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every pod template, as a pod."""
    for one in objects:
        spec = one.get("spec", {})
        groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]] if one["kind"] == "RayCluster" else []
        groups += [spec] if one["kind"] == "Deployment" else []
        for group in groups:
            template = group["template"]
            yield {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {"name": "pod", **template["metadata"]}}


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def test_there_are_specs() -> None:
    assert {path.stem for path in SPECS} == {"kind", "cpu-pool", "gpu-pool"}


def test_objects_are_valid(objects: list[dict[str, Any]]) -> None:
    for one in [*objects, *pods(objects)]:
        if one["kind"] == "RayCluster":
            RAY_CLUSTER.validate(one["spec"])
        else:
            kubernetes_validate.validate(one, "1.34", strict=True)


def test_a_wrong_object_is_not() -> None:
    """The checks above can fail."""
    with pytest.raises(Exception, match="replica"):
        RAY_CLUSTER.validate({"headGroupSpec": {"template": {}}, "workerGroupSpecs": [{"replica": 1}]})
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"names": "x"}}, "1.34", strict=True
        )


def test_pods_pass_the_restricted_standard(objects: list[dict[str, Any]]) -> None:
    found = list(pods(objects))
    assert len(found) >= 3
    for pod in found:
        security = pod["spec"]["securityContext"]
        assert security["runAsNonRoot"]
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod["spec"].keys()
        assert all("hostPath" not in volume for volume in pod["spec"]["volumes"])
        for container in containers(pod):
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["readOnlyRootFilesystem"] is True
            assert own["capabilities"] == {"drop": ["ALL"]}
            asked, most = container["resources"]["requests"], container["resources"]["limits"]
            is_worker = pod["metadata"]["labels"]["epochal.io/role"] == "worker"
            assert most == (asked if is_worker else {"memory": asked["memory"]}), "ray start needs a CPU for moments"
            assert not container["image"].endswith(":latest")


def test_no_value_of_a_secret_is_in_an_object(objects: list[dict[str, Any]]) -> None:
    """Tokens and passwords are referred to, by variables whose names say what they are."""
    for pod in pods(objects):
        for container in containers(pod):
            for variable in container["env"]:
                if variable["name"].endswith(("TOKEN", "PASSWORD", "USERNAME")):
                    assert "value" not in variable
                    assert variable["valueFrom"]["secretKeyRef"]["key"]
            assert "token" not in " ".join(container.get("command", [])).lower()
    assert not [one for one in objects if one["kind"] == "Secret"]


def test_only_its_own_nodes_reach_ray(objects: list[dict[str, Any]]) -> None:
    (policy,) = [one["spec"] for one in objects if one["kind"] == "NetworkPolicy"]
    label = policy["podSelector"]["matchLabels"]
    assert policy["ingress"] == [{"from": [{"podSelector": {"matchLabels": label}}]}]
    assert all(label.items() <= pod["metadata"]["labels"].items() for pod in pods(objects))
    services = [one["spec"]["headGroupSpec"]["serviceType"] for one in objects if one["kind"] == "RayCluster"]
    assert services == ["ClusterIP"]


def test_the_agent_may_set_its_own_groups_and_nothing_else(objects: list[dict[str, Any]]) -> None:
    (role,) = [one for one in objects if one["kind"] == "Role"]
    name = role["metadata"]["name"].removesuffix("-agent")
    changes = [rule for rule in role["rules"] if not set(rule["verbs"]) <= {"get", "list", "watch"}]
    assert [(rule["resources"], rule["resourceNames"], rule["verbs"]) for rule in changes] == [
        (["rayclusters"], [name], ["get", "patch"])
    ]
    assert not [pod for pod in pods(objects) if pod["spec"]["automountServiceAccountToken"]]
    with_token = [pod for pod in pods(objects) if "serviceAccountToken" in json.dumps(pod)]
    assert [pod["metadata"]["labels"]["epochal.io/role"] for pod in with_token] == ["agent"]


def test_code_of_jobs_is_not_where_the_agents_tokens_are(objects: list[dict[str, Any]]) -> None:
    """A task of Ray can be sent to each of its nodes, that of the agent's pod too."""
    (pod,) = [pod for pod in pods(objects) if pod["metadata"]["labels"]["epochal.io/role"] == "agent"]
    (ray,), (agent,) = pod["spec"]["initContainers"], pod["spec"]["containers"]
    assert ray["restartPolicy"] == "Always", "it is there as long as the agent"
    assert "shareProcessNamespace" not in pod["spec"]
    secret = [one["name"] for one in ray["env"] if "valueFrom" in one]
    assert secret == ["RAY_AUTH_TOKEN"]
    assert {"EPOCHAL_TOKEN", "RAY_AUTH_TOKEN"} <= {one["name"] for one in agent["env"] if "valueFrom" in one}
    rays, agents = ({one["name"]: one["mountPath"] for one in each["volumeMounts"]} for each in (ray, agent))
    assert rays == {"tmp": "/tmp", "ray": "/tmp/ray", "shm": "/dev/shm"}
    assert rays.keys() & agents.keys() == {"ray", "shm"}
    assert agents["account"] == "/var/run/secrets/kubernetes.io/serviceaccount"


def test_pods_have_the_folders_of_the_storage_that_they_need(objects: list[dict[str, Any]]) -> None:
    """Not those of the server and MLflow, who would follow a link that code of a job leaves there."""
    for pod in pods(objects):
        for container in containers(pod):
            found = {one["mountPath"]: one["subPath"] for one in container["volumeMounts"] if one["name"] == "storage"}
            assert container["name"] == "ray" or found == {
                "/var/lib/epochal/server/storage": "server/storage",
                "/var/lib/epochal/datasets": "datasets",
            }


def test_ray_is_the_one_that_is_installed(objects: list[dict[str, Any]]) -> None:
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert pinned["ray"] == RAY_VERSION
    (cluster,) = [one["spec"] for one in objects if one["kind"] == "RayCluster"]
    assert cluster["rayVersion"] == RAY_VERSION
    assert cluster["authOptions"] == {"mode": "token"}


def test_raylets_keep_warm_workers(objects: list[dict[str, Any]]) -> None:
    """Ray's processes read these when they start; without them it ends idle workers within seconds."""
    for pod in pods(objects):
        for container in containers(pod):
            env = {variable["name"]: variable.get("value") for variable in container["env"]}
            assert env["RAY_num_workers_soft_limit"] == "0"
            assert int(env["RAY_idle_worker_killing_time_threshold_ms"]) >= 10**9
            assert env["RAY_prestart_worker_first_driver"] == "0"


def test_a_groups_pods_are_as_the_spec_says() -> None:
    objects = manifests(load_cluster_spec(ROOT / "cluster" / "gpu-pool.yaml"), "training")
    (cluster,) = [one["spec"] for one in objects if one["kind"] == "RayCluster"]
    group = next(one for one in cluster["workerGroupSpecs"] if one["groupName"] == "h100")
    pod = group["template"]["spec"]
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (0, 0, 8)
    assert group["rayStartParams"]["num-gpus"] == "8"
    assert pod["containers"][0]["resources"]["limits"] == {
        "cpu": "96", "memory": "1024Gi", "nvidia.com/gpu": "8", "rdma/hca": "8",
    }  # fmt: skip
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert {"name": "NCCL_SOCKET_IFNAME", "value": "eth0"} in pod["containers"][0]["env"]
    spot = next(one for one in cluster["workerGroupSpecs"] if one["groupName"] == "l4-spot")
    assert spot["labels"] == {"ray.io/market-type": "spot"}


def test_the_specs_are_yaml_that_others_read() -> None:
    for path in SPECS:
        assert yaml.safe_load(path.read_text())["version"] == 1
