"""Trials that raise, use up memory, diverge, hang or are killed: each costs itself, and its user reads why."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from foreground import epochal
from served import Served
from swept import SWEEP

from epochal.ledger.states import EventKind, JobState, Reason
from epochal.ledger.values import Job
from epochal.tracking.trial_runs import PARENT_TAG

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FAULTS = {
    "raises": ("USER_ERROR", "ValueError: column 7 is not what it should be"),
    "memory": ("OUT_OF_MEMORY", "DefaultCPUAllocator"),
    "nan": ("NON_FINITE_LOSS", "loss"),
    "hangs": ("HANG", "no progress for"),
    "killed": ("INFRASTRUCTURE", "killed by a signal"),
}
CHANGES = (
    "model.name=faulty_model:FaultyModel", "model.params={}", "limits.no_progress=3s", "retry.infra=1",
    "sweep.search={name: grid}", "sweep.trial_scheduler={name: none}",
    f"sweep.space={{model.params.fault: {{choice: ['', {', '.join(FAULTS)}]}}}}",
)  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("served")) as served:
        served.agent("agent-1", (), "--warm", "2", "--cpus", "2")
        yield served


def carried_out(served: Served, budget: int) -> Job:
    job_id = served.commanded(SWEEP, *(part for change in CHANGES for part in ("-s", change)),
                              "-s", f"sweep.failure_budget={budget}")  # fmt: skip
    return served.until_ended(job_id)


def told(served: Served, *command: str) -> str:
    """What a user reads."""
    server = {"EPOCHAL_SERVER": served.url, "EPOCHAL_TOKEN": served.admin_token, "COLUMNS": "200"}
    done = epochal(served.folder / "users-home", *command, **server)
    assert done.returncode == 0, done.stderr
    print(f"$ epochal {' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def failed_runs(served: Served, job: Job) -> dict[str, Any]:
    from mlflow import MlflowClient

    client = MlflowClient(served.tracking_uri)
    run_id = served.until(lambda: served.ledger.job(job.id).run_id, "the parent's run")
    condition = f"tags.`{PARENT_TAG}` = '{run_id}' AND attributes.status = 'FAILED'"
    experiment = client.get_run(run_id).info.experiment_id
    found = served.until(
        lambda: len(runs := client.search_runs([experiment], condition)) == len(FAULTS) and runs, "failed children"
    )
    return {run.data.params["model.params.fault"]: run.data.tags for run in found}


def test_a_sweep_succeeds_though_trials_fail_and_says_why(served: Served) -> None:
    job = carried_out(served, len(FAULTS))
    assert (job.state, job.reason) == (JobState.SUCCEEDED, Reason.COMPLETED), job
    assert len(served.ledger.attempts(job.id)) == 1
    trials = {one.point["model.params.fault"]: one for one in served.client.trials(job.id)}
    assert trials.pop("").state == "COMPLETED"
    assert {fault: one.reason for fault, one in trials.items()} == {
        name: reason for name, (reason, _) in FAULTS.items()
    }
    for fault, (_, words) in FAULTS.items():
        assert words in trials[fault].message

    events = [event for event in served.client.events(job.id) if event.kind == EventKind.TRIAL_FAILED]
    assert sorted(event.message for event in events) == sorted(
        f"trial {one.number}: {one.message}" for one in trials.values()
    )
    tags = failed_runs(served, job)
    assert {name: (one["epochal.reason"], one["mlflow.note.content"]) for name, one in tags.items()} == {
        name: (one.reason, one.message) for name, one in trials.items()
    }
    read = {name: told(served, *name.split(), job.id) for name in ("status", "sweep status", "events", "why")}
    assert "5 failed" in read["status"]
    assert "5 failed" in read["sweep status"]
    for reason, words in FAULTS.values():
        assert f"FAILED ({reason})" in read["sweep status"]
        assert re.search(f"trial_failed +RUNNING +{reason} +trial . *: .*{words}", read["events"])
    assert "goes on with new workers" in read["events"], "the killed one was tried twice"


def test_a_sweep_over_its_budget_fails_and_says_why(served: Served) -> None:
    job = carried_out(served, len(FAULTS) - 1)
    assert job.state is JobState.FAILED
    assert "5 trials failed, and failure_budget is 4; the last, trial" in job.message
    trials = served.client.trials(job.id)
    assert [one.state for one in trials if one.point["model.params.fault"]] == ["FAILED"] * len(FAULTS)
    assert f"with {job.reason}: " in job.message
    assert len(served.ledger.attempts(job.id)) == 1, "more would change nothing"
    assert job.message.partition("; the last")[0] in json.loads(told(served, "status", job.id, "-o", "json"))["message"]
