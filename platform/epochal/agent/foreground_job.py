"""The one job of `epochal run`, in the ledger of this home."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property

from epochal.agent.in_process import LedgerSource
from epochal.agent.job_folder import origin_of
from epochal.agent.job_runner import Agent, JobRunner
from epochal.agent.observer import Observer
from epochal.agent.reconcile import foreground_name, settle_interrupted
from epochal.agent.retention import Pruner
from epochal.agent.submission import submit
from epochal.agent.summary import Summary
from epochal.engine.connection import Connection
from epochal.errors import ConflictError, EpochalError, some
from epochal.ledger.states import JobKind, JobState
from epochal.ledger.values import LEASE_SECONDS, Job
from epochal.redaction import said
from epochal.settings import Home, Retention
from epochal.spec.job import JobSpec
from epochal.spec.load import LoadedSpec
from epochal.tracking.desired_run import artifacts_folder, model_folder
from epochal.tracking.syncer import Synced
from epochal.tracking.tracker import sync_all
from epochal.urls import without_password

_SYNC_OTHERS_SECONDS = 10.0


class ForegroundJob:
    """Queued by ``submit`` or ``queue_again``, run by ``run``, told by ``summary``; ``close`` lets go of the ledger.

    Opening it reconciles what commands that died left in the ledger.
    """

    def __init__(self, home: Home, tracking_uri: str, retention: Retention, observer: Observer) -> None:
        self._home = home
        self._tracking_uri = tracking_uri
        self._retention = retention
        self._observer = observer
        self._runner: JobRunner | None = None
        self._ledger = LedgerSource.open(home.ledger_url)
        for attempt in settle_interrupted(self._ledger, home):
            observer.notice(f"{attempt.job_id} was left behind by a process that died; it is PAUSED now")

    def close(self) -> None:
        self._ledger.close()

    def submit(self, loaded: LoadedSpec, command: tuple[str, ...]) -> None:
        self._job = submit(self._ledger, self._home, loaded, command)

    def queue_again(self, ref: str) -> None:
        self._job = _queued_again(self._ledger, ref)

    @property
    def workers(self) -> int:
        """The most that it can have."""
        return self._spec.most_workers

    @cached_property
    def _spec(self) -> JobSpec:
        return JobSpec.from_stored(dict(self._ledger.full_job(self._job.id).spec))

    def run(self, cluster: Connection, interrupted: Callable[[], float | None]) -> None:
        """To its end, or until it was interrupted: ``interrupted`` gives the grace where that was asked for before."""
        agent = Agent(foreground_name(), self._ledger, cluster, self._home, self._tracking_uri)
        runner = self._carried(agent, interrupted)
        while self._job.state is JobState.QUEUED:  # a sweep that was asked for more in the moment at which it ended
            if runner.tracking is not None:
                runner.tracking.leave()
            runner = self._carried(agent, interrupted)
        self._observer.state(self._job)

    def _carried(self, agent: Agent, interrupted: Callable[[], float | None]) -> JobRunner:
        lease = self._ledger.lease(agent.name, LEASE_SECONDS, self._job.id)
        if lease is None:
            hint = f"wait until it has ended there; then `epochal run --resume {self._job.id}`, if it was PAUSED"
            raise ConflictError(f"{self._job.id} was taken by someone else", hint)
        self._runner = runner = JobRunner(agent, lease, self._observer)
        # Asked once the runner can be found: an interrupt at this very moment reaches it one way or the other.
        if (grace := interrupted()) is not None:
            self.interrupt(grace)
        self._job = runner.run() or self._ledger.job(self._job.id)
        return runner

    @property
    def has_workers(self) -> bool:
        return self._runner is not None and self._runner.has_place

    def interrupt(self, grace: float) -> None:
        """Have it save its state and end, to be PAUSED then; nothing where it does not run yet."""
        if self._runner is not None:
            with suppress(EpochalError):  # it has just ended, or the ledger does not answer: then its end pauses it
                self._ledger.request_pause(self._job.id, "interrupted at the keyboard", grace)
            self._runner.interrupt(grace)

    def summary(self, began: float) -> Summary:
        """How it ended, once MLflow was sent what was left. ``began``: when the command did, by the monotonic clock."""
        runner = self._runner
        assert runner is not None
        tracking = runner.settle(self._job)
        synced = tracking.close() if tracking is not None else Synced("", "", left="", problem="")
        if tracking is not None and tracking.run_id:
            # MLflow answers: it is sent what it could not take of earlier jobs.
            sync_all(self._tracking_uri, self._home.storage, _SYNC_OTHERS_SECONDS)
        self._prune()
        result, folder = runner.ending.result, self._home.job(self._job.id)
        progress = runner.reporter.progress if runner.reporter else None
        saved = runner.reporter.saved if runner.reporter else None
        model, report = model_folder(folder), artifacts_folder(folder) / "report.html"
        return Summary(
            job=self._job.id,
            state=self._job.state.value,
            reason=self._job.reason.value if self._job.reason else "",
            message=self._job.message,
            attempts=len(self._ledger.attempts(self._job.id)),
            seconds=round(time.monotonic() - began, 2),
            run_id=synced.run_id,
            experiment_id=synced.experiment_id,
            tracking_uri=without_password(self._tracking_uri),
            experiment=self._spec.experiment_name,
            unsent=synced.left,
            problem=synced.problem,
            refused=runner.ending.refusal and not (progress and progress.step),
            metrics=dict(result.get("metrics") or (progress.metrics if progress else {})),
            best=result.get("best"),
            trial=result.get("trial"),
            point=result.get("point") or {},
            report=str(report) if report.exists() else None,
            model=str(model) if model.exists() else None,
            checkpoint=str(folder / saved.path) if saved else None,
        )

    def _prune(self) -> None:
        pruner = Pruner(self._ledger, self._home, self._retention, self._code_needed)
        kept = self._retention
        try:
            deleted = [*pruner.prune(), *self._ledger.prune(kept.events, kept.jobs_at_least)]
        except (EpochalError, OSError) as error:  # a full disk must not keep anybody from hearing how the job has ended
            self._observer.notice(f"what is as old as --retain says could not be deleted: {said(error)}")
            return
        if deleted:
            self._observer.notice(f"deleted what is as old as --retain says: {some(deleted)}")

    def _code_needed(self) -> set[str]:
        """What jobs that may go on were submitted with: there is no other copy."""
        jobs = self._ledger.jobs(states=[state for state in JobState if not state.is_terminal])
        return {code for job in jobs if (code := origin_of(self._ledger.full_job(job.id)).code)}


def _queued_again(ledger: LedgerSource, ref: str) -> Job:
    job = ledger.job(ref)
    if job.state.is_active:
        raise ConflictError(f"{job.id} is running: {job.owner} has it", "interrupt it there, then resume it")
    if job.state is JobState.QUEUED:
        return job
    if job.state.is_terminal:
        anew = f"to start another job from its weights, submit a spec with train.init_from={job.id}"
        more = f"`epochal sweep extend {job.id} --trials N` has it try more"
        raise ConflictError(f"{job.id} is {job.state} and cannot go on", more if job.kind is JobKind.SWEEP else anew)
    return ledger.resume(job.id)
