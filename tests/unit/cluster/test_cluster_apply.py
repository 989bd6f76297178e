"""Applying a cluster spec: what becomes of each object, whose the numbers of pods are, and what it waits for."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import Configuration

from epochal.cli.main import main
from epochal.cluster.api import Api
from epochal.cluster.apply import apply
from epochal.cluster.kinds import path_to
from epochal.cluster.load import load_cluster_spec
from epochal.cluster.manifests import manifests
from epochal.cluster.scale import scale
from epochal.errors import CapacityError, ConflictError, NotFoundError
from kubernetes_api import KubernetesApi

SPEC = """\
version: 1
name: pool
image: {name: "epochal:0.1.0"}
server: {url: "http://server:8700", token: {secret: agent, key: token}}
tracking: {url: "http://mlflow:5000"}
storage: {claim: storage}
groups:
  - {name: cpu, cpus: 4, memory: 8GiB, min: 0, max: 4}
  - {name: big, cpus: 8, memory: 8GiB, min: 1, max: 2}
"""
RAY = path_to("RayCluster", "training", "pool")


@pytest.fixture
def server() -> Iterator[KubernetesApi]:
    with KubernetesApi() as running:
        yield running


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    file = tmp_path / "cluster.yaml"
    file.write_text(SPEC)
    return file


def applied(server: KubernetesApi, spec: Path, *overrides: str, **how: bool) -> dict[str, str]:
    objects = manifests(load_cluster_spec(spec, overrides), "training")
    return {f"{one.kind} {one.name}": one.what for one in apply(Api(Configuration(host=server.url)), objects, **how)}


def sizes(server: KubernetesApi) -> dict[str, int]:
    return {group["groupName"]: group["replicas"] for group in server.objects[RAY]["spec"]["workerGroupSpecs"]}


def test_applied_again_it_changes_what_was_changed(server: KubernetesApi, spec: Path) -> None:
    first = applied(server, spec)
    assert set(first.values()) == {"created"}
    assert set(first) >= {"RayCluster pool", "Deployment pool-agent", "Role pool-agent"}
    assert set(applied(server, spec).values()) == {"unchanged"}
    again = applied(server, spec, "groups.0.max=3")
    assert {name for name, what in again.items() if what == "changed"} == {"RayCluster pool"}


@pytest.mark.parametrize("ours", ["part_of=two", ""], ids=["release", "nobody"])
def test_a_cluster_that_is_part_of_something_else_is_left_alone(server: KubernetesApi, spec: Path, ours: str) -> None:
    applied(server, spec)
    assert applied(server, spec, "part_of=one")["RayCluster pool"] == "changed", "it was nobody's"
    with pytest.raises(ConflictError, match="the cluster pool is part of one") as refused:
        applied(server, spec, *filter(None, [ours]))
    assert "another name" in refused.value.hint
    assert applied(server, spec, *filter(None, [ours]), force=True)["RayCluster pool"] == "changed"


def test_it_leaves_the_numbers_of_pods_to_the_agent(server: KubernetesApi, spec: Path) -> None:
    applied(server, spec)
    assert sizes(server) == {"cpu": 0, "big": 1}
    scale(Api(Configuration(host=server.url)), server.objects[RAY], {"cpu": 3}, {"cpu": ["pod-a"]})
    assert server.objects[RAY]["metadata"]["managedFields"] == [{"manager": "epochal-agent"}]
    assert applied(server, spec, "groups.0.cpus=6")["RayCluster pool"] == "changed"
    assert sizes(server) == {"cpu": 3, "big": 1}
    group = server.objects[RAY]["spec"]["workerGroupSpecs"][0]
    assert group["scaleStrategy"] == {"workersToDelete": ["pod-a"]}
    assert group["rayStartParams"]["num-cpus"] == "6"
    applied(server, spec, "groups.0.max=2", "groups.1.min=2")
    assert sizes(server) == {"cpu": 2, "big": 2}, "within the new bounds"


def test_a_number_that_is_set_in_between_is_not_lost(server: KubernetesApi, spec: Path) -> None:
    applied(server, spec)
    answer, late = server.answer, iter([True])

    def between(method: str, target: str, body: Any) -> Any:
        if method == "PATCH" and "rayclusters" in target and next(late, False):
            changed = json.loads(json.dumps(server.objects[RAY]))
            changed["spec"]["workerGroupSpecs"][0]["replicas"] = 4
            server.put(RAY, changed, "epochal-agent")
        return answer(method, target, body)

    server.answer = between  # type: ignore[method-assign]
    assert applied(server, spec, "groups.0.cpus=6")["RayCluster pool"] == "changed"
    assert sizes(server) == {"cpu": 4, "big": 1}


def test_what_somebody_else_has_set_stays(server: KubernetesApi, spec: Path) -> None:
    applied(server, spec)
    server.put(RAY, server.objects[RAY], "kubectl-edit")
    with pytest.raises(ConflictError, match="kubectl-edit"):
        applied(server, spec, "groups.0.cpus=6")
    assert applied(server, spec, "groups.0.cpus=6", force=True)["RayCluster pool"] == "changed"


def test_a_dry_run_of_the_server_changes_nothing(server: KubernetesApi, spec: Path) -> None:
    assert set(applied(server, spec, dry_run=True).values()) == {"created"}
    assert not server.objects
    assert {query["dryRun"] for method, _, query in server.requests if method == "PATCH"} == {"All"}


@pytest.fixture
def kubeconfig(server: KubernetesApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path)))


def pod(server: KubernetesApi, role: str, name: str, status: dict[str, Any], group: str = "") -> None:
    labels = {"epochal.io/cluster": "pool", "epochal.io/role": role, "ray.io/group": group}
    template = server.objects[RAY]["spec"]["headGroupSpec"]["template"]
    metadata = {"name": name, "labels": labels, "annotations": template["metadata"]["annotations"]}
    containers = [{"name": "ray", "image": "epochal:0.1.0", "resources": {"requests": {"cpu": "8"}}}]
    path = path_to("Pod", "training", name)
    server.put(path, {"metadata": metadata, "spec": {"containers": containers}, "status": status})


READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}


@pytest.mark.usefixtures("kubeconfig")
def test_the_command_waits_and_says_for_what(
    server: KubernetesApi, spec: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["cluster", "apply", str(spec), "--timeout", "0s"]) == CapacityError.exit_code
    told = capsys.readouterr().err
    assert "RayCluster pool is created" in told
    assert "KubeRay has not seen the RayCluster yet" in told
    assert "`epochal cluster status pool -n training`" in told

    deployment = server.objects[path_to("Deployment", "training", "pool-agent")]
    deployment["status"] = {"updatedReplicas": 1}
    server.objects[RAY]["status"] = {"state": "ready"}
    pod(server, "head", "pool-head", READY)
    pod(server, "agent", "pool-agent-1", READY)
    refused = "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available."
    scheduled = {"type": "PodScheduled", "status": "False", "message": refused}
    pod(server, "worker", "pool-big-1", {"phase": "Pending", "conditions": [scheduled]}, "big")
    assert main(["cluster", "status", "pool"]) == 5
    out, told = capsys.readouterr()
    assert [line.split()[:4] for line in out.splitlines()[3:]] == [
        ["group", "cpu", "0", "0"],
        ["group", "big", "0", "1"],
    ]
    assert "group big: 1 of 1 pod: no node takes it: of 2 nodes 2 with less than 8 cpu free; ask for less" in told

    pod(server, "worker", "pool-big-1", READY, "big")
    assert main(["cluster", "apply", str(spec), "-o", "json", "--timeout", "5s"]) == 0
    assert json.loads(capsys.readouterr().out)["ready"] is True
    assert main(["cluster", "status", "pool"]) == 0


@pytest.mark.usefixtures("kubeconfig")
def test_pods_of_the_spec_before_do_not_count(
    server: KubernetesApi, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    applied(server, spec)
    pod(server, "head", "pool-head", READY)
    applied(server, spec, "image.name=epochal:0.2.0")
    assert main(["cluster", "status", "pool", "-o", "json"]) == 5
    head = json.loads(capsys.readouterr().out)["parts"][0]
    assert (head["ready"], head["waits"]) == (0, ["1 of 1 pod: it is of the spec before, and is made anew"])


@pytest.mark.usefixtures("kubeconfig")
def test_a_ray_cluster_that_somebody_else_has_made_has_a_status_too(
    server: KubernetesApi, capsys: pytest.CaptureFixture[str]
) -> None:
    group = {"groupName": "cpu", "replicas": 1, "minReplicas": 0, "maxReplicas": 2}
    spec = {"headGroupSpec": {"template": {"spec": {}}}, "workerGroupSpecs": [group]}
    server.put(RAY, {"metadata": {"name": "pool", "namespace": "training"}, "spec": spec})
    assert main(["cluster", "status", "pool"]) == 5
    assert "agent: its Deployment is not there" in capsys.readouterr().err


@pytest.mark.usefixtures("kubeconfig")
def test_scale_keeps_to_the_bounds(server: KubernetesApi, spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    applied(server, spec)
    assert main(["cluster", "scale", "pool", "cpu=2"]) == 0
    assert "group cpu: 0 pods before, 2 now" in capsys.readouterr().err
    assert sizes(server)["cpu"] == 2
    for wrong, code in (("cpu=5", 2), ("cpu", 2), ("gpu=1", 3), ("cpu=1 cpu=3", 2)):
        assert main(["cluster", "scale", "pool", *wrong.split()]) == code
        assert sizes(server)["cpu"] == 2
    told = capsys.readouterr().err
    assert "0 to 4 pods, not 5" in told
    assert "each group once, got cpu=1 cpu=3" in told


@pytest.mark.usefixtures("kubeconfig")
def test_delete_leaves_nothing_of_it_and_all_of_others(
    server: KubernetesApi, spec: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    applied(server, spec)
    applied(server, spec, "name=other")
    before = dict(server.objects)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert main(["cluster", "delete", "pool"]) == 130
    shown = capsys.readouterr()
    assert "Delete the cluster pool in the namespace training" in shown.err
    assert not shown.out, "where it may go into a file, and is not seen"
    assert server.objects == before
    assert main(["cluster", "delete", "pool", "--yes"]) == 0
    left = {one["metadata"]["labels"]["epochal.io/cluster"] for one in server.objects.values()}
    assert left == {"other"}
    assert main(["cluster", "delete", "pool", "--yes"]) == 3


@pytest.mark.usefixtures("kubeconfig")
def test_what_is_part_of_the_same_goes_by_that(
    server: KubernetesApi, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def left() -> set[str]:
        return {one["metadata"]["labels"]["epochal.io/cluster"] for one in server.objects.values()}

    for name, part_of in (("first", "one"), ("second", "one"), ("another", "two")):
        applied(server, spec, f"name={name}", f"part_of={part_of}")
    applied(server, spec, "name=alone")
    now = ["cluster", "apply", str(spec), "-s", "part_of=one", "--prune", "--no-wait"]
    assert main([*now, "--dry-run", "server"]) == 0
    assert "the cluster first would be deleted" in capsys.readouterr().err
    assert left() == {"first", "second", "another", "alone"}
    assert main(now) == 0
    assert left() == {"pool", "another", "alone"}
    assert main(["cluster", "delete", "--part-of", "one", "--yes"]) == 0
    assert left() == {"another", "alone"}
    assert main(["cluster", "delete", "--part-of", "one", "--yes"]) == 3
    assert main(["cluster", "delete", "--yes"]) == 2
    assert main(["cluster", "delete", "alone", "--part-of", "two", "--yes"]) == 2
    assert left() == {"another", "alone"}


@pytest.mark.usefixtures("kubeconfig")
def test_no_command_asks_for_more_than_the_table_of_permissions_has(server: KubernetesApi, spec: Path) -> None:
    page = Path(__file__).parents[3] / "platform" / "docs" / "how-to" / "scale-on-kubernetes.md"
    table = [line.strip("| ").split("|") for line in page.read_text().splitlines() if line.startswith("| ")][:6]
    columns = [cell.strip(" `") for cell in table[0]]
    rows = {word.strip(" `"): row for row in table[1:] for word in row[0].partition("(")[0].split(",")}
    for command, words in (
        ("apply", ["apply", str(spec), "--timeout", "0s"]),
        ("status", ["status"]),
        ("status", ["status", "pool"]),
        ("scale", ["scale", "pool", "cpu=1"]),
        ("delete", ["delete", "pool", "--yes"]),
    ):
        server.requests.clear()
        main(["cluster", *words])
        assert server.requests
        for method, path, _ in server.requests:
            resource, *name = path.partition("/namespaces/training/")[2].split("/")
            needed = {"GET": "get" if name else "list", "PATCH": "patch", "DELETE": "delete"}[method]
            given = {one.strip() for one in rows[resource][columns.index(command)].split(",")}
            assert needed in given, (command, resource, method)


@pytest.mark.usefixtures("kubeconfig")
def test_nothing_is_pruned_for_a_cluster_that_is_refused(
    server: KubernetesApi, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    applied(server, spec, "name=first", "part_of=one")
    applied(server, spec, "part_of=two")
    before = dict(server.objects)
    now = ["cluster", "apply", str(spec), "--prune", "--no-wait"]
    assert main([*now, "-s", "part_of=one"]) == ConflictError.exit_code
    assert "the cluster pool is part of two" in capsys.readouterr().err
    assert server.objects == before
    assert main(now) == 2, "there is nothing that it could go by"
    assert "the spec has none" in capsys.readouterr().err


@pytest.mark.usefixtures("kubeconfig")
def test_what_a_deletion_that_was_broken_off_has_left_is_found_by_what_it_is_part_of(
    server: KubernetesApi, spec: Path
) -> None:
    applied(server, spec, "part_of=one")
    for kind in ("/deployments/", "/rayclusters/"):
        del server.objects[next(path for path in server.objects if kind in path)]
    assert main(["cluster", "delete", "--part-of", "one", "--yes"]) == 0
    assert not server.objects


@pytest.mark.usefixtures("kubeconfig")
def test_delete_done_again_deletes_what_is_left(server: KubernetesApi, spec: Path) -> None:
    applied(server, spec)
    del server.objects[next(path for path in server.objects if "/rayclusters/" in path)]
    assert main(["cluster", "delete", "pool", "--yes"]) == 0
    assert not server.objects


@pytest.mark.usefixtures("kubeconfig")
def test_delete_waits_for_pods_that_end(
    server: KubernetesApi, spec: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    applied(server, spec)
    pod(server, "head", "pool-head", READY)
    path = next(path for path in server.objects if path.endswith("pool-head"))
    monkeypatch.setattr("time.sleep", lambda _: server.objects.pop(path))
    assert main(["cluster", "delete", "pool", "--yes"]) == 0
    assert "waiting until Ray's pods have gone" in capsys.readouterr().err
    assert path not in server.objects


@pytest.mark.usefixtures("kubeconfig")
def test_a_dry_run_of_the_client_asks_nobody(
    server: KubernetesApi, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cluster", "apply", str(spec), "--dry-run", "client", "-n", "here"]) == 0
    assert main(["cluster", "render", str(spec), "-n", "here"]) == 0
    out = capsys.readouterr().out
    assert out[: len(out) // 2] == out[len(out) // 2 :]
    assert not server.requests


@pytest.mark.usefixtures("kubeconfig")
def test_what_keeps_pods_from_being_made_is_told_of_those_who_make_them(
    server: KubernetesApi, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As KubeRay 1.6.2 and Kubernetes 1.34 tell it; and an event about a cluster of the same name, deleted since."""
    applied(server, spec)
    forbidden = 'pods "pool-big-worker-6f2bd" is forbidden: exceeded quota: small, requested: pods=1'
    condition = {"type": "ReplicaFailure", "status": "True", "message": f"FailedCreateWorkerPod\n{forbidden}"}
    server.objects[RAY]["status"] = {"conditions": [condition]}
    about = {"kind": "RayCluster", "name": "pool", "uid": "of-one-before"}
    event = {"type": "Warning", "involvedObject": about, "message": "of the one before"}
    server.put(path_to("Event", "training", "e"), event)
    pod(server, "head", "pool-head", READY)
    assert main(["cluster", "status", "pool"]) == 5
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "agent: 1 of 1 pod: it is not made yet",
        "group big: 1 of 1 pod: it cannot be made: exceeded quota: small, requested: pods=1; have it raised, or ask for"
        " less",
    ]


@pytest.mark.usefixtures("kubeconfig")
def test_a_cluster_that_the_chart_has_not_made_yet_is_explained_by_what_its_server_lacks(
    server: KubernetesApi, capsys: pytest.CaptureFixture[str]
) -> None:
    def of_the_chart(kind: str, name: str, component: str, status: dict[str, Any]) -> None:
        part, chart = {"app.kubernetes.io/component": component}, {"app.kubernetes.io/managed-by": "Helm"}
        labels = {"app.kubernetes.io/name": "epochal", **part, **chart}
        server.put(path_to(kind, "training", name), {"metadata": {"name": name, "labels": labels}, "status": status})

    last = {"terminated": {"exitCode": 5, "message": "error: cannot use the ledger postgresql://epochal@nowhere/l\n"}}
    migrate = {"restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": last}
    of_the_chart("Pod", "epochal-server-1", "server", {"initContainerStatuses": [migrate]})
    missing = {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "mine" not found'}}
    of_the_chart("Pod", "epochal-mlflow-1", "mlflow", {"containerStatuses": [{"state": missing}]})
    of_the_chart("Pod", "epochal-postgresql-0", "postgresql", READY)
    of_the_chart("Pod", "epochal-test", "test", {"phase": "Failed"})
    failure = {"type": "ReplicaFailure", "status": "True"}
    forbidden = 'pods "epochal-server-5d" is forbidden: exceeded quota: small, requested: pods=1'
    of_the_chart("Deployment", "epochal-server", "server", {"conditions": [{**failure, "message": forbidden}]})
    of_the_chart("StatefulSet", "epochal-postgresql", "postgresql", {"replicas": 0})
    made = server.objects[path_to("StatefulSet", "training", "epochal-postgresql")]["metadata"]["uid"]
    refused = "maximum memory usage per Container is 256Mi, but limit is 512Mi"
    forbidden = 'create Pod epochal-postgresql-0 failed error: pods "epochal-postgresql-0" is forbidden: '
    event = {"type": "Warning", "involvedObject": {"uid": made}, "message": forbidden + refused}
    server.put(path_to("Event", "training", "refused"), event)
    assert main(["cluster", "status", "epochal"]) == NotFoundError.exit_code
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    ledger = "error: cannot use the ledger postgresql://epochal@nowhere/l"
    assert told == [
        f"warning: epochal-server-1: it has ended 2 times: exit code 5: {ledger}",
        'warning: epochal-mlflow-1: CreateContainerConfigError: secret "mine" not found; make it, or name one that is'
        " there",
        "warning: epochal-server: its pod cannot be made: exceeded quota: small, requested: pods=1; have it raised, or"
        " ask for less",
        f"warning: epochal-postgresql: its pod cannot be made: {refused}; by a LimitRange of the"
        " namespace: keep to it, or have it changed",
    ]
