"""Worker groups of a real cluster: one at zero starts for a job, and is empty again; what could never be is told.

The second half wants simulated nodes with GPUs (kwok): labelled `kwok.x-k8s.io/node=fake`, of 8 `nvidia.com/gpu` each.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from epochal.client.room import why_never
from epochal.ledger.states import JobState
from epochal.ledger.values import Why, WhyKind
from installation import STEPS, Installation
from kubernetes_cluster import Kubernetes
from polling import until

pytestmark = pytest.mark.timeout(1800)

IDLE_SECONDS = 20
FAKE = "kwok.x-k8s.io/node"
TOLERATED = [{"key": FAKE, "operator": "Exists"}]
GPU = {"min": 0, "cpus": 8, "memory": "16GiB", "gpus": 8, "idle": f"{IDLE_SECONDS}s"}
GROUPS = [
    {
        "name": "cpu",
        "min": 0,
        "max": 2,
        "cpus": 1,
        "memory": "3GiB",
        "shared_memory": "512MiB",
        "idle": f"{IDLE_SECONDS}s",
    },
    {"name": "gpu", "max": 6, "tolerations": TOLERATED, "node_selector": {FAKE: "fake"}, **GPU},
    {"name": "strict", "max": 1, "node_selector": {FAKE: "fake"}, **GPU},
]


@pytest.fixture(scope="module")
def installed(kubernetes: Kubernetes, namespace: str) -> Iterator[Installation]:
    options = ("--set-json", f"cluster.groups={json.dumps(GROUPS)}")
    with Installation(kubernetes, namespace, options=options) as installation:
        yield installation
        installation.uninstall()


def sizes(installed: Installation) -> dict[str, int]:
    found = installed.kubernetes.get(installed.namespace, "raycluster/epochal")["spec"]["workerGroupSpecs"]
    return {group["groupName"]: group["replicas"] for group in found}


def pods(installed: Installation, group: str) -> list[dict[str, Any]]:
    """Those that are not ending."""
    found = installed.kubernetes.get(installed.namespace, "pods", "--selector", f"ray.io/group={group}")["items"]
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def whys_until(installed: Installation, job_id: str, states: set[JobState]) -> list[Why]:
    """All that `why` says while the job is QUEUED."""
    said: list[Why] = []

    def look() -> bool:
        why = installed.asked(lambda: installed.client.why(job_id))
        if why not in said:
            said.append(why)
        return installed.asked(lambda: installed.client.job(job_id)).state in states

    until(look, f"it is {states}", 300)
    return said


def test_a_group_at_zero_starts_for_a_job_and_goes_back_without_hurting_one_that_trains(
    installed: Installation,
) -> None:
    assert sizes(installed) == {"cpu": 0, "gpu": 0, "strict": 0}
    began = time.time()
    wide = installed.submitted("resources.workers=2", "env.SLOW_WHILE=/nowhere")
    said = whys_until(installed, wide, {JobState.RUNNING, JobState.SUCCEEDED})
    waited = [why.message for why in said if why.kind is WhyKind.PROVISIONING]
    print(f"RUNNING {time.time() - began:.0f} s after submit; told meanwhile:", *waited, sep="\n  ")
    assert any("group cpu has 0 of 2 nodes" in message for message in waited)
    assert any("pods: " in message for message in waited), "with the pods' own reasons"
    job = installed.ended(wide)
    assert job.state is JobState.SUCCEEDED, job.message

    # One worker trains on for longer than `idle`: the other node goes meanwhile, and this one does not.
    narrow = installed.submitted("resources.workers=1", "env.SLOW_SECONDS='0.3'")
    installed.until_step(narrow, 1)
    until(lambda: sizes(installed)["cpu"] == 1, "the idle node is given back", IDLE_SECONDS + 60)
    job = installed.client.job(narrow)
    assert (job.state, (job.progress or {})["step"] < STEPS) == (JobState.RUNNING, True)
    job = installed.ended(narrow)
    assert job.state is JobState.SUCCEEDED, job.message
    assert [one.reason for one in installed.client.attempts(narrow)] == [job.reason], "at the first attempt"

    until(lambda: sizes(installed)["cpu"] == 0 and not pods(installed, "cpu"), "it is empty", IDLE_SECONDS + 60)


def submitted(installed: Installation, gpus: int) -> str:
    """A job that wants so many, one a worker."""
    room = (f"resources.workers={gpus}", "resources.gpus_per_worker=1", "train.global_batch_size=128")
    return installed.submitted(*room)


def test_gpus_that_are_simulated(installed: Installation) -> None:
    nodes = installed.kubernetes.get("default", "nodes", "--selector", f"{FAKE}=fake")["items"]
    if sum(int(node["status"]["allocatable"].get("nvidia.com/gpu", 0)) >= 8 for node in nodes) < 6:
        pytest.skip(f"needs six nodes labelled {FAKE}=fake with 8 nvidia.com/gpu each")
    agents = until(
        lambda: [one for one in installed.client.agents() if one.groups], "the agent has told of its groups", 180
    )
    one, four, sixteen = (submitted(installed, 8 * count) for count in (1, 4, 16))
    assert not why_never(installed.client.job(four).spec, agents)
    why = why_never(installed.client.job(sixteen).spec, agents)
    print(why)
    assert "128 workers with 1 CPU, 1 GPU each can never fit" in why
    assert installed.client.why(sixteen).kind is WhyKind.NEVER_FITS
    until(
        lambda: len([pod for pod in pods(installed, "gpu") if pod["spec"].get("nodeName")]) == 5, "five pods have nodes"
    )
    assert sizes(installed) == {"cpu": 0, "gpu": 5, "strict": 0}
    assert {installed.client.why(job_id).kind for job_id in (one, four)} == {WhyKind.PROVISIONING}

    # The next two find one more node in `gpu`, and one in `strict`, whose pod no node takes: it tolerates no taint.
    more = [submitted(installed, 8) for _ in range(2)]
    until(lambda: "taint" in installed.client.why(more[1]).message, "why says what is missing")
    print(installed.client.why(more[1]).message)
    for job_id in (one, four, sixteen, *more):
        installed.client.stop(job_id)
    until(lambda: set(sizes(installed).values()) == {0}, "nothing waits, and nothing is asked for", IDLE_SECONDS + 60)
