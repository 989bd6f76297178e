"""Two releases in two namespaces, and one server with the agents of two clusters: each job goes where it fits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from epochal.client.client import Client
from epochal.errors import AuthError
from epochal.ledger.states import JobState
from installation import Installation
from kubernetes_cluster import Kubernetes, run
from polling import until

pytestmark = pytest.mark.timeout(1800)

SMALL = {"cpus": 0.2, "memory": "2GiB"}
GROUP = {"name": "cpu", "min": 1, "max": 1, "cpus": 1, "memory": "3GiB", "shared_memory": "512MiB"}

ONE_WORKER = "resources.workers=1"
CPUS = 6.0
"""Of all nodes: the pods of two releases ask for 3.5, and a worker's for one on a node that also has others'."""


def options(lets_in: str) -> tuple[str, ...]:
    """One node for a worker, and an MLflow that agents of that namespace reach."""
    others = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": lets_in}}}]
    values = {
        "cluster.groups": [GROUP], "networkPolicy.mlflowFrom": others, "backup.enabled": False,
    }  # fmt: skip
    return tuple(part for name, value in values.items() for part in ("--set-json", f"{name}={json.dumps(value)}"))


def free_for_all(kubernetes: Kubernetes) -> float:
    """The CPUs of the nodes that take any pod."""
    nodes = kubernetes.get("default", "nodes")["items"]
    told = [one["status"]["allocatable"]["cpu"] for one in nodes if not one["spec"].get("taints")]
    return sum(float(cpu.removesuffix("m")) / (1000 if cpu.endswith("m") else 1) for cpu in told)


@pytest.fixture(scope="module")
def two(kubernetes: Kubernetes, namespace: str, other_namespace: str) -> Iterator[tuple[Installation, Installation]]:
    if (cpus := free_for_all(kubernetes)) < CPUS:
        pytest.skip(f"needs nodes with {CPUS:g} CPUs together, three of two for instance; they have {cpus:g}")
    with ExitStack() as stack:
        ours = stack.enter_context(Installation(kubernetes, namespace, options(other_namespace)))
        stack.callback(ours.uninstall)
        yield ours, stack.enter_context(Installation(kubernetes, other_namespace, options(namespace)))


def test_two_releases_know_nothing_of_each_other(two: tuple[Installation, Installation]) -> None:
    submitted = [(one, one.submitted(ONE_WORKER)) for one in two]
    for one, job_id in submitted:
        one.succeeded(job_id)
        assert one.jobs == {job_id}
        assert [agent.name for agent in one.client.agents()] == ["epochal"]
    ours, theirs = two
    with Client(ours.client.server, theirs.variables["EPOCHAL_TOKEN"]) as stranger, pytest.raises(AuthError):
        stranger.jobs()


@pytest.fixture
def wide(two: tuple[Installation, Installation], tmp_path: Path) -> Iterator[Installation]:
    """The first server's, with a second cluster, whose node has more memory, in the other namespace."""
    ours, theirs = two
    theirs.uninstall()
    token = ours.client.create_token("wide", "agent")[1]
    there, known = f"{ours.namespace}.svc", ours.variables
    mlflow = {"username": known["MLFLOW_TRACKING_USERNAME"], "password": known["MLFLOW_TRACKING_PASSWORD"]}
    for name, values in (("agent-of-ours", {"token": token}), ("mlflow-of-ours", mlflow)):
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}
        theirs.kubectl("apply", "--filename", "-", stdin=json.dumps(secret))
    spec = {
        "version": 1,
        "name": "wide",
        "image": {"name": ours.kubernetes.image},
        "server": {"url": f"http://epochal-server.{there}:8700", "token": {"secret": "agent-of-ours", "key": "token"}},
        "tracking": {"url": f"http://epochal-mlflow.{there}:5000"}
        | {key: {"secret": "mlflow-of-ours", "key": key} for key in mlflow},
        "storage": {"claim": "epochal-storage"},
        "head": SMALL,
        "agent": SMALL,
        "groups": [GROUP | {"memory": "5GiB"}],
    }
    file = tmp_path / "wide.yaml"
    file.write_text(yaml.safe_dump(spec))
    run("epochal", "cluster", "apply", str(file), "--namespace", theirs.namespace, "--timeout", "8m", seconds=600)
    yield ours
    run("epochal", "cluster", "delete", "wide", "--namespace", theirs.namespace, "--yes")


def test_one_server_has_each_job_go_to_the_cluster_that_it_fits(wide: Installation) -> None:
    until(lambda: len([agent for agent in wide.client.agents() if agent.alive]) == 2, "both agents")
    big = wide.submitted(ONE_WORKER, "resources.memory_per_worker=4GiB", "env.SLOW_SECONDS='0.2'")
    until(lambda: wide.client.job(big).state is JobState.RUNNING, "it trains")
    small = wide.submitted(ONE_WORKER)
    for job_id, agent in ((small, "epochal"), (big, "wide")):
        wide.succeeded(job_id)
        assert [attempt.agent.partition("/")[0] for attempt in wide.client.attempts(job_id)] == [agent]
