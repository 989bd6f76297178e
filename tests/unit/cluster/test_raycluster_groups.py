"""The worker groups of a RayCluster, as its agent reads and scales them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import Configuration

from epochal.cli.main import main
from epochal.cluster.api import Api
from epochal.cluster.kinds import path_to
from epochal.cluster.load import load_cluster_spec
from epochal.cluster.manifests import manifests
from epochal.cluster.worker_groups import RayClusterGroups
from epochal.errors import ConflictError, UsageError
from kubernetes_api import KubernetesApi

ROOT = Path(__file__).parents[3]
RAY = path_to("RayCluster", "training", "gpu-pool")


@pytest.fixture
def server() -> Iterator[KubernetesApi]:
    with KubernetesApi() as running:
        objects = manifests(load_cluster_spec(ROOT / "cluster" / "gpu-pool.yaml"), "training")
        running.put(RAY, next(one for one in objects if one["kind"] == "RayCluster"))
        yield running


@pytest.fixture
def groups(server: KubernetesApi) -> RayClusterGroups:
    return RayClusterGroups(Api(Configuration(host=server.url)), "training", "gpu-pool")


def pod(server: KubernetesApi, name: str, group: str, status: dict[str, Any], **metadata: Any) -> None:
    made = server.objects[RAY]["spec"]["headGroupSpec"]["template"]["metadata"]["annotations"]
    labels = {"epochal.io/cluster": "gpu-pool", "epochal.io/role": "worker", "ray.io/group": group}
    about = {"name": name, "labels": labels, "annotations": made, **metadata}
    server.put(path_to("Pod", "training", name), {"metadata": about, "spec": {}, "status": status})


def test_what_it_reads(server: KubernetesApi, groups: RayClusterGroups) -> None:
    server.objects[RAY]["spec"]["workerGroupSpecs"][1] |= {
        "replicas": 3,
        "scaleStrategy": {"workersToDelete": ["old"]},
    }
    pod(server, "a", "h100", {"podIP": "10.0.0.7", "conditions": [{"type": "Ready", "status": "True"}]})
    pod(server, "b", "h100", {"conditions": [{"type": "PodScheduled", "status": "False", "message": "no GPUs"}]})
    pod(server, "c", "h100", {"podIP": "10.0.0.9"}, deletionTimestamp="2026-01-01T00:00:00Z")
    cpu, h100, spot = groups.read()
    assert (cpu.name, cpu.least, cpu.most, cpu.asked, cpu.idle, cpu.shape["CPU"]) == ("cpu", 1, 4, 1, 600.0, 16.0)
    assert (h100.least, h100.most, h100.asked, h100.idle) == (0, 8, 3, 900.0)
    assert h100.shape == {"CPU": 96.0, "GPU": 8.0, "memory": 1024.0 * 2**30}
    assert h100.pods == {"a": "10.0.0.7", "b": None}
    assert h100.removed == {"old"}
    assert set(h100.waits) == {"1 of 3 pods: no node takes it: no GPUs", "1 of 3 pods: it is ending"}
    assert spot.waits == ()


def test_it_sets_one_group_and_names_the_pods_that_go(server: KubernetesApi, groups: RayClusterGroups) -> None:
    _, h100, spot = groups.read()
    groups.scale(h100, 2, [])
    groups.scale(spot, 1, ["x"])
    told = [
        (group["replicas"], group.get("scaleStrategy", {}).get("workersToDelete"))
        for group in server.objects[RAY]["spec"]["workerGroupSpecs"]
    ]
    assert told == [(1, None), (2, []), (1, ["x"])]
    with pytest.raises(ConflictError):
        groups.scale(h100, 3, [])  # as it was read it had none
    groups.read()
    groups.scale(h100, 3, [])


def test_it_asks_for_no_more_than_the_agents_role_allows(server: KubernetesApi, groups: RayClusterGroups) -> None:
    group = groups.read()[1]
    groups.scale(group, 1, [])
    asked = {(method, path.split("/")[-1] if path != RAY else "this") for method, path, _ in server.requests}
    assert asked == {("GET", "this"), ("PATCH", "this"), ("GET", "pods"), ("GET", "events")}


def test_an_agent_takes_the_raycluster_that_it_joins(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agent", "--raycluster", "training/pool"]) == UsageError.exit_code
    assert main(["agent", "--raycluster", "pool", "--join", "127.0.0.1:1"]) == UsageError.exit_code
    assert "NAMESPACE/NAME" in capsys.readouterr().err
