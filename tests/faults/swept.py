"""What the trials of a sweep must be, whatever happened to it: by plain trainings, without Ray and without an agent."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foreground import history

from agent_jobs import SLOW_CODE
from epochal.client.client import Client
from epochal.errors import NonFiniteError
from epochal.ledger.states import JobState
from epochal.ledger.sweep_values import TrialRecord
from epochal.ledger.values import FullJob
from epochal.spec.job import JobSpec
from epochal.spec.tree import placed
from epochal.sweeps.controller import Controller
from epochal.sweeps.ranking import full_length
from epochal.sweeps.trials import Asked, Finish, Point, Reached, Run, Trial, TrialState
from epochal.tracking.recorder import MemoryRecorder
from epochal.tracking.trial_runs import OBJECTIVE, PARENT_TAG, TRIAL_TAG, Journal
from epochal.training.control import NullControl
from epochal.training.fit import fit
from epochal.training.setup import prepare
from epochal.training.worker import Worker
from polling import until
from training_gang import TestGang

SWEEP = str(Path(__file__).parent / "slow_job" / "sweep.yaml")
CLOSED = ("FINISHED", "FAILED", "KILLED")
"""What MLflow says of a run that has ended; one of a job that is queued again is SCHEDULED."""

History = Mapping[str, Mapping[int, float]]
"""Metrics by name and step."""


class Trainings:
    """Trains points of a sweep to their full length, each once, in a process of its own. Use it as a context manager;
    ``folder`` is where they leave their state."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, History] = {}
        self._gang = TestGang(1)

    def __enter__(self) -> Trainings:
        return self

    def __exit__(self, *_: object) -> None:
        self._gang.close()

    def of(self, spec: Mapping[str, Any], points: Sequence[Point]) -> list[History]:
        """``spec`` is the sweep's, as it is stored."""
        rarely = {"every": "1h", "keep": {"best": 0}}
        specs = [{**placed(spec, point), "sweep": None, "env": {}, "checkpoint": rarely} for point in points]
        keys = [json.dumps(one, sort_keys=True) for one in specs]
        new = {key: one for key, one in zip(keys, specs, strict=True) if key not in self._known}
        trained = self._gang.run(1, _trained, list(new.values()), self._folder / str(len(self._known)))[0]
        self._known |= dict(zip(new, trained, strict=True))
        return [self._known[key] for key in keys]


def _trained(worker: Worker, specs: Sequence[Mapping[str, Any]], folder: Path) -> list[History]:
    sys.path.insert(0, str(SLOW_CODE))
    found = []
    for number, spec in enumerate(specs):
        own, recorder = JobSpec.from_stored(dict(spec)), MemoryRecorder()
        with suppress(NonFiniteError):  # what was measured before counts
            fit(prepare(own, folder), worker, folder / str(number), recorder, NullControl())
        found.append({name: dict(points) for name, points in recorder.history.items()})
    return found


@dataclass(frozen=True)
class Swept:
    """A sweep that has ended, and where its runs are."""

    client: Client
    tracking_uri: str
    job: FullJob
    trials: Sequence[TrialRecord]

    @classmethod
    def of(cls, client: Client, tracking_uri: str, job_id: str) -> Swept:
        return cls(client, tracking_uri, client.job(job_id), client.trials(job_id))

    @property
    def spec(self) -> JobSpec:
        return JobSpec.from_stored(dict(self.job.spec))

    def problems(self, trainings: Trainings, ordered: bool = False) -> Iterator[str]:
        """Everything that is wrong. ``ordered``: its trials trained one after the other, or whatever their order was it
        has no influence; then there is only one sweep that this can be."""
        job, trials = self.job, self.trials
        if job.state is not JobState.SUCCEEDED:
            yield f"{job.id} is {job.state} ({job.reason}): {job.message}"
            return
        numbers = [one.number for one in trials]
        if numbers != list(range(self.spec.sweep.trials)) or not all(one.state.is_over for one in trials):
            yield f"{job.id} has the trials {numbers}, {Counter(one.state for one in trials)}"
        histories = trainings.of(job.spec, [one.point for one in trials])
        for one, trained in zip(trials, histories, strict=True):
            yield from self._of_trial(one, trained)
        if ordered:
            told = [stands(one.trial) for one in trials]
            unbroken = [stands(one) for one in simulated(self.spec, job.spec, trainings)]
            yield from (f"{job.id}: trial {had[0]} is {had[1:]}, not {want[1:]}"
                        for had, want in zip(told, unbroken, strict=False) if had != want)  # fmt: skip
        yield from self._of_runs(histories)

    def _of_trial(self, one: TrialRecord, trained: History) -> Iterator[str]:
        name = f"{self.job.id}: trial {one.number}"
        objective = self.spec.objective.metric
        per_epoch = _steps_per_epoch(trained)
        for length, value in one.curve:
            if value != trained[objective].get(round(length * per_epoch)):
                yield f"{name} at {length:g} is {value}, not {trained[objective].get(round(length * per_epoch))}"
        last = round(one.length * per_epoch)
        wrong = {key: value for key, value in one.metrics.items() if value != trained.get(key, {}).get(last)}
        if wrong:
            yield f"{name}: its metrics {wrong} are not those of step {last}"
        if one.state is TrialState.COMPLETED and one.length != full_length(self.spec):
            yield f"{name} is {one.state} at {one.length:g}"

    def _of_runs(self, histories: Sequence[History]) -> Iterator[str]:
        """What MLflow has: each child once, closed, with the whole curve and no more."""
        from mlflow import MlflowClient

        client, job = MlflowClient(self.tracking_uri), self.job
        with suppress(AssertionError):  # MLflow hears of the end after the ledger
            until(lambda: client.get_run(str(job.run_id)).info.status in CLOSED, "its run is closed", 60)
        parent = client.get_run(str(job.run_id))
        if parent.info.status != "FINISHED":
            yield f"{job.id}: its run is {parent.info.status}"
        children = client.search_runs(
            [parent.info.experiment_id], f"tags.`{PARENT_TAG}` = '{job.run_id}'", max_results=5000
        )
        by_trial: dict[int, list[Any]] = {}
        for run in children:
            by_trial.setdefault(int(run.data.tags[TRIAL_TAG]), []).append(run)
        counts = {number: len(runs) for number, runs in by_trial.items()}
        if counts != {one.number: 1 for one in self.trials}:
            yield f"{job.id}: its trials have so many runs: {counts}"
        for one, trained in zip(self.trials, histories, strict=True):
            for run in by_trial.get(one.number, ()):
                yield from self._of_run(one, run, trained)

    def _of_run(self, one: TrialRecord, run: Any, trained: History) -> Iterator[str]:
        name, run_id = f"{self.job.id}: the run of trial {one.number}", run.info.run_id
        status = "FAILED" if one.state is TrialState.FAILED else "FINISHED"
        if run.info.status != status:
            yield f"{name} is {run.info.status}, not {status}"
        if run_id != one.run_id:
            yield f"{name} is {run_id}; the ledger says {one.run_id}"
        wrong = {
            path: run.data.params.get(path)
            for path, value in one.point.items()
            if run.data.params.get(path) != str(value)
        }
        if wrong:
            yield f"{name} has the parameters {wrong}, not {one.point}"
        measured = [(round(length), value) for length, value in one.curve]
        if (told := history(self.tracking_uri, run_id, OBJECTIVE)) != measured:
            yield f"{name} has measured {told}, not {measured}"
        last = round(one.length * _steps_per_epoch(trained))
        for metric in ("train/loss", self.spec.objective.metric):
            want = [(step, value) for step, value in sorted(trained[metric].items()) if step <= last]
            if (had := history(self.tracking_uri, run_id, metric)) != want:
                yield f"{name}: {metric} has {len(had)} points, not {len(want)}: {had[-3:]}, not {want[-3:]}"


def reached(folder: Path) -> int:
    """How many segments of its trials the agent has seen to their end, of the sweep whose job's folder that is."""
    journal = Journal(folder)
    journal.read()
    return sum(len(run.measured) for run in journal.runs.values())


def simulated(spec: JobSpec, stored: Mapping[str, Any], trainings: Trainings) -> list[Trial]:
    """The trials of that sweep where each is done before the next begins, and nothing goes wrong."""
    controller, holds, objective = Controller.of(spec), None, spec.objective.metric
    while True:
        commands = controller.step(Asked(holds))
        if any(isinstance(one, Finish) for one in commands):
            break
        run = next(one for one in commands if isinstance(one, Run))
        trained = trainings.of(stored, [run.point])[0]
        value = trained[objective][round(run.until * _steps_per_epoch(trained))]
        if any(isinstance(one, Finish) for one in controller.step(Reached(run.trial, run.until, value))):
            break
        holds = run.trial
    return list(controller.trials.values())


def stands(trial: Trial) -> tuple[Any, ...]:
    """What two trials that are the same have in common."""
    return trial.number, dict(trial.point), trial.state, [(one.length, one.value) for one in trial.curve], trial.why


def _steps_per_epoch(trained: History) -> int:
    """By the validations, of which there is one an epoch."""
    return min(trained["val/loss"])
