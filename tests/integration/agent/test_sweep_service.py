"""Sweeps carried by an agent, on a real Ray, a real ledger and MLflow's own database."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest

from agent_jobs import in_state, slowed
from epochal.agent.in_process import LedgerSource
from epochal.agent.job_runner import Agent
from epochal.agent.service import AgentService
from epochal.engine.connection import Connection
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import EventKind, JobState, Outcome, Reason
from epochal.ledger.sweep_values import NewInput, TrialRecord
from epochal.ledger.values import Job
from epochal.settings import Home
from epochal.spec.job import JobSpec
from epochal.spec.load import load_text
from epochal.sweeps.controller import Controller
from epochal.sweeps.inputs import from_json, to_json
from epochal.sweeps.trials import Asked, Copy, Reached, TrialState
from epochal.tracking.desired_run import model_folder
from epochal.tracking.metric_spool import read_lines, segments
from epochal.tracking.trial_runs import trial_folder
from polling import PATIENCE_SECONDS, until

RATES = [0.4, 0.2, 0.1, 0.05, 0.02, 0.01]

Serve = Callable[[], AgentService]


@pytest.fixture
def serve(cluster: Connection, home: Home, ledger: LedgerSource, tracking_uri: str) -> Iterator[Serve]:
    """Starts an agent in a thread; it is drained at the end of the test, or by ``drain``."""
    started: list[tuple[AgentService, threading.Thread]] = []

    def start() -> AgentService:
        service = AgentService(Agent("agent", ledger, cluster, home, tracking_uri, hands_back=True), warm_per_node=0)
        thread = threading.Thread(target=service.run)
        thread.start()
        started.append((service, thread))
        return service

    yield start
    for service, thread in started:
        service.drain()
        thread.join(60)
        assert not thread.is_alive()


def submit(ledger: Ledger, *changes: str, **sweep: Any) -> Job:
    spec = wine(*changes, **sweep)
    return ledger.submit(spec.model_dump(mode="json"), name=spec.name, priority=spec.priority)


def wine(*changes: str, **sweep: Any) -> JobSpec:
    text = f"""
version: 1
name: wine
model: {{name: mlp}}
data: {{name: wine}}
train: {{epochs: 4, global_batch_size: 32, optimizer: {{name: sgd, lr: 0.1}}}}
objective: {{metric: val/loss, mode: min}}
sweep:
  search: {{name: {sweep.pop("search", "grid")}}}
  trial_scheduler: {sweep.pop("scheduler", "{name: none}")}
  trials: {sweep.pop("trials", len(RATES))}
  failure_budget: {sweep.pop("failure_budget", 3)}
  space: {sweep.pop("space", f"{{train.optimizer.lr: {{choice: {RATES}}}}}")}
"""
    assert not sweep
    return load_text(text, Path("/wine.yaml"), changes).spec


def slow(seconds: float = 0.05) -> tuple[str, ...]:
    return "task.name=slow_task:SlowClassification", *slowed(seconds)


def ended(ledger: Ledger, job: Job, seconds: float = PATIENCE_SECONDS) -> Job:
    return until(lambda: (now := ledger.job(job.id)).state.is_terminal and now, f"the end of {job.id}", seconds)


def told(ledger: Ledger, job: Job) -> dict[int, TrialRecord]:
    return {one.number: one for one in ledger.trials(job.id)}


def values(ledger: Ledger, job: Job) -> list[tuple[Any, ...]]:
    """What two sweeps that are the same have in common."""
    return [(one.point, one.state, one.length, one.value) for one in ledger.trials(job.id)]


def over(ledger: Ledger, job: Job, count: int) -> None:
    until(lambda: sum(one.state.is_over for one in ledger.trials(job.id)) >= count, f"{count} trials", 180)


def workers(job: Job) -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if f"epochal:{job.id}:rank" in " ".join(child.cmdline()):
                found.append(child)
    return found


def test_a_sweep_promotes_its_trials_and_is_a_run_with_children(
    serve: Serve, ledger: LedgerSource, home: Home, tracking_uri: str
) -> None:
    job = submit(ledger, scheduler="{name: asha, eta: 2, min: 1ep}")
    serve()
    assert ended(ledger, job).state is JobState.SUCCEEDED
    trials = told(ledger, job)
    assert [trials[number].point["train.optimizer.lr"] for number in range(6)] == RATES
    complete = [one for one in trials.values() if one.state is TrialState.COMPLETED]
    assert complete
    assert all(one.length == 4.0 for one in complete)
    assert {one.state for one in trials.values()} == {TrialState.COMPLETED, TrialState.STOPPED}
    progress = ledger.job(job.id).progress
    assert progress is not None
    best = min(complete, key=lambda one: one.value or 0.0)
    assert progress == {
        "trials": 6, "done": 6, "running": 0, "failed": 0, "best": {"trial": best.number, "value": best.value},
    }  # fmt: skip
    assert (model_folder(home.job(job.id)) / "MLmodel").exists()

    client = mlflow.MlflowClient(tracking_uri)
    run_id = until(lambda: ledger.job(job.id).run_id, "the parent's run")
    experiment = client.get_run(run_id).info.experiment_id

    def children() -> list[Any]:
        found = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{run_id}'")
        return found if len(found) == 6 and all(run.info.status == "FINISHED" for run in found) else []

    runs = until(children, "six children, closed")
    reports = {"report.html", "report.png"}
    until(lambda: reports <= {one.path for one in client.list_artifacts(run_id)}, "the report, which is sent last")
    known = {int(run.data.tags["epochal.trial"]): run.info.run_id for run in runs}
    until(lambda: {number: one.run_id for number, one in told(ledger, job).items()} == known, "the trials' runs")
    logged = {float(run.data.params["train.optimizer.lr"]): run.data.metrics["objective"] for run in runs}
    assert logged == {one.point["train.optimizer.lr"]: one.value for one in trials.values()}


@pytest.mark.slow
def test_a_sweep_that_was_killed_and_drained_has_the_trials_of_an_unbroken_one(
    serve: Serve, ledger: LedgerSource
) -> None:
    whole = submit(ledger, *slow())
    service = serve()
    assert ended(ledger, whole).state is JobState.SUCCEEDED
    broken = submit(ledger, *slow())
    in_state(ledger, broken, JobState.RUNNING)
    for count in (1, 3):
        over(ledger, broken, count)
        until(lambda: workers(broken), "a worker")[0].send_signal(signal.SIGKILL)
    over(ledger, broken, 4)
    service.drain()
    in_state(ledger, broken, JobState.QUEUED)
    serve()
    assert ended(ledger, broken).state is JobState.SUCCEEDED
    assert values(ledger, broken) == values(ledger, whole)
    assert len(ledger.attempts(broken.id)) == 2


@pytest.mark.slow
def test_packs_on_two_workers_find_what_trials_alone_find(serve: Serve, ledger: LedgerSource) -> None:
    space = "{train.optimizer.lr: {dist: loguniform, low: 0.001, high: 0.5}}"
    several: dict[str, Any] = {"search": "random", "trials": 16, "space": space}
    alone = submit(ledger, "sweep.pack=off", "sweep.concurrency=2", **several)
    packed = submit(ledger, "sweep.pack=4", "sweep.concurrency=2", **several)
    serve()
    assert ended(ledger, alone).state is JobState.SUCCEEDED
    assert ended(ledger, packed).state is JobState.SUCCEEDED
    found = [told(ledger, job) for job in (alone, packed)]
    assert [one.point for one in found[0].values()] == [one.point for one in found[1].values()]
    assert [one.value for one in found[1].values()] == pytest.approx([one.value for one in found[0].values()], rel=1e-4)
    assert not [event for event in ledger.events(packed.id) if "not packed" in event.message]
    until(lambda: all(one.run_id for one in ledger.trials(packed.id)), "its trials' runs are known")


@pytest.mark.slow
def test_a_sweep_that_has_succeeded_is_extended(serve: Serve, ledger: LedgerSource) -> None:
    space = "{train.optimizer.lr: {dist: loguniform, low: 0.001, high: 0.5}}"
    longer = submit(ledger, search="random", trials=6, space=space)
    job = submit(ledger, search="random", trials=3, space=space)
    serve()
    assert ended(ledger, longer).state is JobState.SUCCEEDED
    assert ended(ledger, job).state is JobState.SUCCEEDED
    assert len(told(ledger, job)) == 3
    ledger.ask(job.id, {"kind": "extend", "trials": 3}, "more")
    until(lambda: len(told(ledger, job)) == 6, "three trials more")
    assert ended(ledger, job).state is JobState.SUCCEEDED
    assert values(ledger, job) == values(ledger, longer)


@pytest.mark.usefixtures("nothing_packaged")
def test_trials_fail_each_for_its_own_reason(serve: Serve, ledger: LedgerSource, home: Home, tracking_uri: str) -> None:
    """What a user reads of it: in the trials, in the events, in MLflow. The sweep has succeeded all the same."""
    faults = {"raises": "USER_ERROR", "memory": "OUT_OF_MEMORY", "nan": "NON_FINITE_LOSS"}
    space = f"{{model.params.fault: {{choice: ['', {', '.join(faults)}]}}}}"
    job = submit(ledger, "model.name=faulty_model:FaultyModel", "sweep.concurrency=1", space=space)
    serve()
    assert ended(ledger, job).state is JobState.SUCCEEDED
    good, *failed = ledger.trials(job.id)
    assert (good.state, good.reason, good.message) == (TrialState.COMPLETED, None, "")
    assert {one.point["model.params.fault"]: one.reason for one in failed} == faults
    messages = [one.message for one in failed]
    assert "ValueError: column 7 is not what it should be" in messages[0]
    assert "DefaultCPUAllocator" in messages[1]
    assert "loss" in messages[2]
    events = [event for event in ledger.events(job.id) if event.kind == EventKind.TRIAL_FAILED]
    assert {event.message for event in events} == {f"trial {one.number}: {one.message}" for one in failed}
    assert len(events) == 3

    client = mlflow.MlflowClient(tracking_uri)
    run_id = until(lambda: ledger.job(job.id).run_id, "the parent's run")
    experiment = client.get_run(run_id).info.experiment_id

    def closed() -> list[Any]:
        found = client.search_runs(
            [experiment], f"tags.mlflow.parentRunId = '{run_id}' AND attributes.status = 'FAILED'"
        )
        return found if len(found) == 3 else []

    told = {run.data.tags["epochal.trial"]: run.data.tags for run in until(closed, "three failed children")}
    assert {number: tags["epochal.reason"] for number, tags in told.items()} == {
        str(one.number): one.reason for one in failed
    }
    assert {number: tags["mlflow.note.content"] for number, tags in told.items()} == {
        str(one.number): one.message for one in failed
    }


@pytest.mark.slow
@pytest.mark.parametrize(("budget", "state"), [(2, JobState.SUCCEEDED), (1, JobState.FAILED)])
def test_failing_trials_cost_themselves_up_to_the_budget(
    serve: Serve, ledger: LedgerSource, budget: int, state: JobState
) -> None:
    job = submit(
        ledger,
        "train.epochs=30",
        failure_budget=budget,
        space="{train.optimizer.lr: {choice: [9.0e+5, 0.1, 8.0e+5, 0.05]}}",
    )
    serve()
    now = ended(ledger, job)
    assert now.state is state
    if state is JobState.FAILED:
        assert now.reason is Reason.NON_FINITE_LOSS
        assert "2 trials failed" in now.message
        return
    assert [one.state.value for one in ledger.trials(job.id)] == ["FAILED", "COMPLETED", "FAILED", "COMPLETED"]
    assert {one.reason for one in ledger.trials(job.id)} == {None, Reason.NON_FINITE_LOSS.value}


@pytest.mark.slow
def test_pbt_goes_on_from_copied_weights(serve: Serve, ledger: LedgerSource, home: Home) -> None:
    job = submit(
        ledger,
        "train.epochs=6",
        search="random",
        trials=4,
        scheduler="{name: pbt, min: 1ep, quantile: 0.25}",
        space="{train.optimizer.lr: {dist: loguniform, low: 1.0e-4, high: 0.5}}",
    )
    serve()
    assert ended(ledger, job).state is JobState.SUCCEEDED
    spec = JobSpec.from_stored(dict(ledger.full_job(job.id).spec))
    controller, copies = Controller.of(spec), []
    for stored in ledger.inputs(job.id):
        copies += [one for one in controller.step(from_json(stored.body)) if isinstance(one, Copy)]
    assert copies
    losses = [loss_by_step(trial_folder(home.job(job.id), trial)) for trial in range(4)]
    for copy in copies:
        # The same weights and the same batch: what was changed shows a step later.
        first = round(copy.length * 5) + 1
        assert losses[copy.trial][first] == losses[copy.source][first]
    assert all(one.length == 6.0 for one in ledger.trials(job.id))
    hparams = {one.number: one.point for one in ledger.trials(job.id)}
    assert hparams == {trial.number: dict(trial.point) for trial in controller.trials.values()}


def loss_by_step(folder: Path) -> dict[int, float]:
    points = (point for path in segments(folder) for line in read_lines(path) for point in line.points)
    return {point.step: point.value for point in points if point.name == "train/loss"}


def test_a_sweep_whose_agent_died_at_its_end_has_succeeded(serve: Serve, ledger: LedgerSource) -> None:
    """All of its inputs are written down, and the job's end is not."""
    job = submit(ledger, trials=1, space="{train.optimizer.lr: {choice: [0.1]}}")
    lease = ledger.lease("another", 60, job.id)
    assert lease is not None
    ledger.running(lease, world_size=1)
    controller = Controller.of(JobSpec.from_stored(dict(ledger.full_job(job.id).spec)))
    told = [NewInput(to_json(one, controller.step(one))) for one in (Asked(), Reached(0, 4.0, 0.5))]
    assert controller.is_finished
    ledger.append_inputs(lease, 0, told, [TrialRecord.of(controller.trials[0])])
    ledger.retry(lease, Reason.INTERRUPTED, "it died", lost=True)
    serve()
    assert ended(ledger, job).state is JobState.SUCCEEDED
    assert [attempt.outcome for attempt in ledger.attempts(job.id)] == [Outcome.INTERRUPTED, Outcome.SUCCEEDED]
    assert [one.value for one in ledger.trials(job.id)] == [0.5]


TWELVE = "{train.optimizer.lr: {choice: [" + ", ".join(str(0.4 / (1 + number)) for number in range(12)) + "]}}"


def training(ledger: Ledger, workers: int, *changes: str) -> Job:
    """Of higher priority than the sweeps here."""
    resources = {"workers": workers, "cpus_per_worker": 1}
    spec = wine("priority=90", *changes).model_dump(mode="json") | {"sweep": None, "resources": resources}
    return ledger.submit(spec, name="urgent", priority=90)


def resizes(ledger: Ledger, job: Job) -> list[str]:
    return [event.message for event in ledger.events(job.id) if event.kind == EventKind.RESIZED]


@pytest.mark.slow  # each side of it is among the quick tests: of the ledger, and of a sweep's slots
@pytest.mark.usefixtures("nothing_packaged")
def test_a_sweep_gives_a_job_that_comes_first_a_worker_and_takes_it_back(
    serve: Serve, ledger: LedgerSource, tmp_path: Path
) -> None:
    slow_now = tmp_path / "slow"
    slow_now.touch()
    job = submit(
        ledger,
        *slow(2.0),
        f"env.SLOW_WHILE={slow_now}",
        scheduler="{name: asha, eta: 2, min: 1ep}",
        search="random",
        trials=12,
        space="{train.optimizer.lr: {dist: loguniform, low: 0.001, high: 0.5}}",
    )
    serve()
    in_state(ledger, job, JobState.RUNNING)
    assert [attempt.world_size for attempt in ledger.attempts(job.id)] == [2]
    until(lambda: any(one.length for one in ledger.trials(job.id)), "a rung")
    first = training(ledger, 1)
    until(lambda: "gives 1 worker back" in ledger.why(first.id).message or ledger.job(first.id).started_at, "an answer")
    in_state(ledger, first, JobState.RUNNING)
    assert resizes(ledger, job) == [f"2 -> 1 for {first.id}"]
    assert f"resized 2 -> 1 for {first.id}" in ledger.why(job.id).message
    wide = training(ledger, 2)  # the sweep keeps its last worker
    assert ended(ledger, first, 240).state is JobState.SUCCEEDED
    until(lambda: len(resizes(ledger, job)) == 2, "two workers again")
    assert ledger.job(wide.id).state is JobState.QUEUED
    ledger.request_stop(wide.id, grace=0)
    slow_now.unlink()
    assert ended(ledger, job).state is JobState.SUCCEEDED
    assert resizes(ledger, job) == [f"2 -> 1 for {first.id}", "1 -> 2"]
    assert [one.number for one in ledger.trials(job.id) if one.state.is_over] == list(range(12))
    assert len(ledger.attempts(job.id)) == 1


@pytest.mark.slow
def test_a_preemptible_sweep_leaves_as_a_whole_where_its_last_worker_is_needed(
    serve: Serve, ledger: LedgerSource
) -> None:
    job = submit(ledger, "preemptible=true", *slow(), trials=12, space=TWELVE)
    serve()
    over(ledger, job, 1)
    wide = training(ledger, 2)
    in_state(ledger, wide, JobState.RUNNING)
    assert ledger.job(job.id).state is JobState.QUEUED
    assert ended(ledger, job).state is JobState.SUCCEEDED
    assert [one.state for one in ledger.trials(job.id)] == [TrialState.COMPLETED] * 12
    assert [attempt.reason for attempt in ledger.attempts(job.id)] == [Reason.PREEMPTED, Reason.COMPLETED]


@pytest.mark.slow
def test_a_long_segment_is_interrupted_for_a_job_that_comes_first(
    serve: Serve, ledger: LedgerSource, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("epochal.agent.sweep_slots.PATIENCE", 1.0)
    slow_now = tmp_path / "slow"
    slow_now.touch()
    space = "{train.optimizer.lr: {choice: [0.1, 0.05]}}"
    job = submit(ledger, *slow(1.0), f"env.SLOW_WHILE={slow_now}", "train.epochs=40", trials=2, space=space)
    serve()
    until(lambda: len(told(ledger, job)) == 2 and len(workers(job)) == 2, "two trials", 180)
    first = training(ledger, 1)
    # Before: "1 -> 2", where the test before has not given all of its room back yet.
    until(lambda: resizes(ledger, job)[-1:] == [f"2 -> 1 for {first.id}"], "room")
    assert not any(one.state.is_over for one in ledger.trials(job.id))
    assert len(workers(job)) == 1
    slow_now.unlink()
    assert ended(ledger, job).state is JobState.SUCCEEDED
    assert [one.state for one in ledger.trials(job.id)] == [TrialState.COMPLETED] * 2
    assert ended(ledger, first, 240).state is JobState.SUCCEEDED
