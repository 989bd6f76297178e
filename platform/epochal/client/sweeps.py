"""The client's verbs on sweeps: their trials, and what can be asked of them."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from epochal.client.http import Http, Request
from epochal.client.jobs import job_path
from epochal.client.plain import plain
from epochal.errors import ConflictError
from epochal.ledger.states import JobKind, JobState
from epochal.ledger.sweep_values import TrialRecord, best_of
from epochal.ledger.values import FullJob, Job
from epochal.spec.job import JobSpec


class Sweeps(ABC):
    """What can be asked of sweeps, wherever they are kept. A sweep is a job, and named as one.

    What is asked with a ``key`` is asked once, however often. A sweep that has ended is queued again.
    """

    @abstractmethod
    def job(self, ref: str) -> FullJob:
        """One job, by its id, a unique beginning of that, or its name (the newest of that name)."""

    @abstractmethod
    def trials(self, ref: str, states: Collection[str] = ()) -> list[TrialRecord]:
        """The trials of a sweep by number; ``sweep_values.best_first`` puts them in another order."""

    @abstractmethod
    def _request(self, ref: str, asked: Mapping[str, Any], key: str) -> Job:
        """One of ``sweep_values.Ask``, as JSON has it."""

    @abstractmethod
    def goes_on(self, job: Job) -> str:
        """The command that has a job go on; empty where it does so by itself."""

    def best_trial(self, ref: str) -> TrialRecord:
        """The best of the trials that trained to their full length, or before there is one the best so far.

        Raises:
            ConflictError: the job is no sweep, or no trial has a number for its objective yet.
        """
        return _best(self._sweep(ref), self.trials(ref))

    def best_spec(self, ref: str) -> JobSpec:
        """The best trial's point as a job of its own, ready to be submitted: its name ends in ``-best``.

        Raises:
            ConflictError: as ``best_trial``.
            SpecError: this version cannot run that point.
        """
        from epochal.catalog.index import check
        from epochal.spec.point import spec_at

        job = self._sweep(ref)
        point = _best(job, self.trials(job.id)).point
        return spec_at(job.spec, point, [check], [f"name={job.name[:_LONGEST_NAME]}-best"])

    def extend(self, ref: str, trials: int, key: str | None = None) -> Job:
        """Try so many points more than were planned, also after the sweep has finished."""
        return self._asked(ref, {"kind": "extend", "trials": trials}, key)

    def add(self, ref: str, points: Sequence[Mapping[str, Any]], key: str | None = None) -> Job:
        """Try these points next: each a mapping of dotted paths, such as ``{"train.optimizer.lr": 0.01}``.

        Raises:
            SpecError: with every problem of every point.
        """
        return self._asked(ref, {"kind": "add", "points": plain(list(points), "points")}, key)

    def repeat(self, ref: str, trial: int, times: int = 1, key: str | None = None) -> Job:
        """Try a trial's point again, each time with another seed: how much of its lead is luck?

        Raises:
            NotFoundError: it has no such trial.
        """
        return self._asked(ref, {"kind": "repeat", "trial": trial, "times": times}, key)

    def cancel(self, ref: str, trial: int, key: str | None = None) -> Job:
        """End one trial.

        Raises:
            NotFoundError: it has no such trial.
            ConflictError: it is over.
        """
        return self._asked(ref, {"kind": "cancel", "trial": trial}, key)

    def _asked(self, ref: str, ask: Mapping[str, Any], key: str | None) -> Job:
        return self._request(ref, ask, key or f"auto-{uuid.uuid4().hex}")

    def _sweep(self, ref: str) -> FullJob:
        job = self.job(ref)
        if job.kind is not JobKind.SWEEP:
            raise ConflictError(f"{job.id} is no sweep", "its spec has no `sweep` block")
        return job


class SweepCalls(Sweeps):
    """See ``Client``. ``pause``, ``resume`` and ``stop`` are those of jobs."""

    _http: Http

    def trials(self, ref: str, states: Collection[str] = ()) -> list[TrialRecord]:
        return trials_of(self._http, ref, states)

    def _request(self, ref: str, asked: Mapping[str, Any], key: str) -> Job:
        body = {"key": key, "ask": asked}
        return Job.from_dict(self._http.json(Request("POST", job_path(ref, "requests"), body=body, repeatable=True)))

    def goes_on(self, job: Job) -> str:
        return f"epochal resume {job.id}" if job.state is JobState.PAUSED else ""


_LONGEST_NAME = 58  # of 63 that a spec's name may have, less those of `-best`


def trials_of(http: Http, ref: str, states: Collection[str] = ()) -> list[TrialRecord]:
    """The trials of a sweep by number."""
    found: list[TrialRecord] = []
    after: int | None = -1
    while after is not None:
        page = http.get(job_path(ref, "trials"), {"after": after, "state": [*states] or None})
        found += [TrialRecord.from_dict(one) for one in page["trials"]]
        after = page["next"]
    return found


def _best(job: FullJob, trials: Sequence[TrialRecord]) -> TrialRecord:
    objective = job.spec["objective"]
    best = best_of(trials, objective["mode"])
    if best is None:
        said = (
            f"none of its {len(trials):,} trials has a number for {objective['metric']}" if trials else "none has begun"
        )
        raise ConflictError(f"{job.id} has no best trial yet: {said}", f"`epochal sweep status {job.id}` shows them")
    return best
