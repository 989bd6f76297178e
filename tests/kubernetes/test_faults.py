"""What breaks while a job trains: it ends well, with the curve of an unbroken one, and what was lost is named soon."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from epochal.ledger.states import JobState
from installation import STEPS, Curve, Installation
from kubernetes_cluster import Kubernetes
from polling import until

pytestmark = pytest.mark.timeout(1800)

STRIKES_AT_STEP = 100
NOTICED_SECONDS = 30.0
"""From the fault to the end of the attempt that it ends, which names it."""

PODS = {
    "worker": "epochal.io/role=worker",
    "head": "epochal.io/role=head",
    "agent": "epochal.io/role=agent",
    "server": "app.kubernetes.io/component=server",
    "mlflow": "app.kubernetes.io/component=mlflow",
    "postgresql": "app.kubernetes.io/component=postgresql",
}

COMMANDS = {
    name: os.environ.get(f"EPOCHAL_{name}", "")
    for name in ("NODE_STOP", "NODE_START", "NODE_CUT", "NODE_JOIN", "API_RESTART")
}
"""How a node of this cluster is stopped and started, or its network cut and joined: shell commands, with the node's
name in ``$NODE`` (on kind: ``docker stop $NODE``); and how its API server is ended and started again. Read before the
environment is cleaned."""


@pytest.fixture(scope="module")
def installed(kubernetes: Kubernetes, namespace: str) -> Iterator[Installation]:
    with Installation(kubernetes, namespace) as installation:
        yield installation
        installation.uninstall()


@pytest.fixture(scope="module")
def unbroken(installed: Installation) -> Curve:
    job = installed.succeeded(installed.submitted("env.SLOW_WHILE=/nowhere"))
    _, curve = installed.curve(job.run_id)
    assert [step for step, _ in curve] == list(range(1, STEPS + 1))
    return curve


def assert_unharmed(installed: Installation, job_id: str, unbroken: Curve) -> None:
    job = installed.ended(job_id)
    assert job.state is JobState.SUCCEEDED, f"{job.reason}: {job.message}"

    def recorded() -> Any:
        with suppress(AssertionError):  # MLflow may be the one that was just lost
            found = installed.curve(str(installed.client.job(job_id).run_id))
            return found if found[0] == "FINISHED" and len(found[1]) >= STEPS else None

    _, curve = until(recorded, "MLflow has all of it")
    assert curve == unbroken
    attempts = installed.client.attempts(job_id)
    print("; ".join(f"attempt {one.epoch}: {one.outcome} {one.reason} {one.message}" for one in attempts))


def lost_after(installed: Installation, job_id: str, began: float) -> tuple[float, str]:
    """The seconds from ``began`` to the end of the first attempt, and what was said of it."""
    first = until(
        lambda: (one := installed.asked(lambda: installed.client.attempts(job_id))[0]).ended_at and one,
        "an attempt ends",
    )
    return first.ended_at - began, first.message


@pytest.mark.parametrize("part", PODS)
def test_a_pod_is_deleted(installed: Installation, unbroken: Curve, part: str) -> None:
    job_id = installed.submitted("env.SLOW_SECONDS='0.1'")
    installed.until_step(job_id, STRIKES_AT_STEP)
    pod = installed.pods(PODS[part])[0]["metadata"]["name"]
    began = time.time()
    # A worker's pod has a minute to drain, in which the job may end.
    grace = ("--grace-period=1",) if part == "worker" else ()
    installed.kubectl("delete", "pod", pod, "--wait=false", *grace)
    if part == "worker":
        seconds, message = lost_after(installed, job_id, began)
        print(f"noticed after {seconds:.1f} s: {message}")
        assert seconds < NOTICED_SECONDS
    assert_unharmed(installed, job_id, unbroken)
    if part in ("server", "mlflow", "postgresql"):
        assert len(installed.client.attempts(job_id)) == 1, "its workers do not need it"
    until(lambda: installed.pods(PODS[part]), f"another {part}")


@pytest.mark.parametrize(("fault", "mend", "cut"), [("NODE_STOP", "NODE_START", 30), ("NODE_CUT", "NODE_JOIN", 60)])
def test_a_node_is_lost(installed: Installation, unbroken: Curve, fault: str, mend: str, cut: float) -> None:
    """One of a worker, and of nothing else."""
    if not (COMMANDS[fault] and COMMANDS[mend]):
        pytest.skip(f"EPOCHAL_{fault} and EPOCHAL_{mend} do not say how")
    node = cleared_node(installed)
    job_id = installed.submitted("env.SLOW_SECONDS='0.2'")
    installed.until_step(job_id, STRIKES_AT_STEP)
    began = time.time()
    _command(COMMANDS[fault], node)
    try:
        seconds, message = lost_after(installed, job_id, began)
        print(f"noticed after {seconds:.1f} s: {message}")
        time.sleep(max(0.0, cut - (time.time() - began)))
    finally:
        _command(COMMANDS[mend], node)
    assert seconds < NOTICED_SECONDS
    assert "node" in message
    assert_unharmed(installed, job_id, unbroken)


def test_the_api_server_restarts(installed: Installation, unbroken: Curve) -> None:
    """What trains does not ask it, and the agent looks after its groups again once it is back."""
    if not COMMANDS["API_RESTART"]:
        pytest.skip("EPOCHAL_API_RESTART does not say how")
    job_id = installed.submitted("env.SLOW_SECONDS='0.2'")
    installed.until_step(job_id, STRIKES_AT_STEP)
    (agent,) = installed.pods(PODS["agent"])
    _command(COMMANDS["API_RESTART"])
    assert_unharmed(installed, job_id, unbroken)
    assert len(installed.client.attempts(job_id)) == 1
    (after,) = installed.pods(PODS["agent"])
    assert after["metadata"]["uid"] == agent["metadata"]["uid"]
    assert [one["restartCount"] for one in after["status"]["containerStatuses"]] == [
        one["restartCount"] for one in agent["status"]["containerStatuses"]
    ]

    def looks_again() -> bool:
        said = installed.kubectl("logs", agent["metadata"]["name"], "--all-containers", "--timestamps")
        return said.count("cannot be looked after") == said.count("are looked after again")

    until(looks_again, "the agent looks after its worker groups")


def cleared_node(installed: Installation) -> str:
    """A node of a worker, on which nothing else is any more."""
    kubectl = installed.kubectl
    parts = [pod for part in PODS if part != "worker" for pod in installed.pods(PODS[part])]
    nodes = sorted(pod["spec"]["nodeName"] for pod in installed.pods(PODS["worker"]))
    assert len(set(nodes)) == 2, "the workers are on two nodes"
    node = min(nodes, key=lambda one: sum(pod["spec"]["nodeName"] == one for pod in parts))
    kubectl("cordon", node)
    try:
        for pod in parts:
            if pod["spec"]["nodeName"] == node:
                kubectl("delete", "pod", pod["metadata"]["name"])
        for labels in PODS.values():
            kubectl("wait", "pod", "--selector", labels, "--for=condition=Ready", "--timeout=300s")
    finally:
        kubectl("uncordon", node)
    return node


def _command(command: str, node: str = "") -> None:
    """What it starts, as the processes of a node, is not of these tests, and stays."""
    known = {name: value for name in ("PATH", "HOME", "KUBECONFIG") if (value := os.environ.get(name))}
    subprocess.run(["bash", "-ec", command], env=known | {"NODE": node}, check=True, timeout=300)
