"""`epochal run`: one job in this process, with a ledger, an agent and a Ray of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from epochal.agent.in_process import LedgerSource
from epochal.agent.job_runner import Agent, JobRunner
from epochal.agent.observer import Observer
from epochal.agent.reconcile import foreground_name, settle_interrupted
from epochal.agent.submission import submit
from epochal.agent.summary import Summary
from epochal.engine.connection import Connection, connect
from epochal.errors import ConflictError
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import JobState
from epochal.ledger.values import LEASE_SECONDS, Job
from epochal.settings import Home
from epochal.spec.job import JobSpec
from epochal.spec.load import LoadedSpec
from epochal.tracking.record import model_folder
from epochal.tracking.sync import Synced
from epochal.tracking.tracker import sync_all

_SYNC_OTHERS_SECONDS = 10.0


@dataclass(frozen=True)
class Place:
    """Where to run: the home, where runs are recorded, and a Ray cluster's address (None: a private one)."""

    home: Home
    tracking_uri: str
    address: str | None = None


class Foreground:
    """Runs one job to its end. ``interrupt`` may be called from a signal handler."""

    def __init__(self, place: Place, observer: Observer) -> None:
        self._place = place
        self._observer = observer
        self._runner: JobRunner | None = None
        self._interrupted = threading.Event()

    def run(self, loaded: LoadedSpec, command: tuple[str, ...] = ()) -> Summary:
        """Submit the job and run it.

        Raises:
            SpecError, CodeError, NotFoundError: it cannot be submitted.
            UnreachableError: Ray does not start, or the cluster does not answer.
        """
        return self._carry(lambda ledger: submit(ledger, self._place.home, loaded, command, self._observer.notice))

    def resume(self, ref: str) -> Summary:
        """Go on with a job that was interrupted, from its newest checkpoint, in the same run.

        Raises:
            NotFoundError: no such job.
            ConflictError: it has ended for good, or runs elsewhere.
        """
        return self._carry(lambda ledger: _queued_again(ledger, ref))

    def interrupt(self) -> None:
        """Have the job save its state and end. What takes time is done in a thread."""
        self._interrupted.set()
        if self._runner is not None:
            threading.Thread(target=self._runner.interrupt, daemon=True).start()

    def _carry(self, queue: Callable[[Ledger], Job]) -> Summary:
        home, began = self._place.home, time.monotonic()
        home.root.mkdir(parents=True, exist_ok=True)
        with LedgerSource.open(home.ledger_url) as ledger:
            for attempt in settle_interrupted(ledger, home):
                self._observer.notice(f"{attempt.job_id} was left behind by a process that died; it is PAUSED now")
            with connect(self._place.address, token_path=home.ray_token) as cluster:
                job, runner = self._carry_on(ledger, cluster, queue)
            tracking = runner.settle(job)
            synced = tracking.close() if tracking is not None else Synced("", "", left="", problem="")
            self._send_what_others_left()
            return _summary(self._place, ledger, job, runner, synced, time.monotonic() - began)

    def _carry_on(
        self, ledger: LedgerSource, cluster: Connection, queue: Callable[[Ledger], Job]
    ) -> tuple[Job, JobRunner]:
        """Queue the job only now that there is a cluster: one that nobody takes would wait in the ledger for ever."""
        job = queue(ledger)
        workers = JobSpec.from_stored(dict(job.spec)).resources.max_workers
        cluster.keep_warm(min(workers, _most_workers(cluster)))
        agent = Agent(foreground_name(), ledger, cluster, self._place.home, self._place.tracking_uri)
        lease = ledger.lease(agent.name, LEASE_SECONDS, job.id)
        if lease is None:
            raise ConflictError(f"{job.id} was taken by someone else", f"`epochal status {job.id}` shows by whom")
        self._runner = JobRunner(agent, lease, self._observer)
        if self._interrupted.is_set():
            self._runner.interrupt()
        job = self._runner.run() or ledger.job(job.id)
        self._observer.state(job)
        return job, self._runner

    def _send_what_others_left(self) -> None:
        """Runs of earlier jobs that MLflow has not got everything of; it must be answering for this to be tried."""
        if self._runner is not None and self._runner.tracking is not None and self._runner.tracking.run_id:
            sync_all(self._place.tracking_uri, self._place.home.storage, _SYNC_OTHERS_SECONDS)


def _queued_again(ledger: Ledger, ref: str) -> Job:
    job = ledger.job(ref)
    if job.state.is_active:
        raise ConflictError(f"{job.id} is running: {job.owner} has it", "interrupt it there, then resume it")
    if job.state is JobState.QUEUED:
        return job
    if job.state.is_terminal:
        raise ConflictError(
            f"{job.id} is {job.state} and cannot go on",
            f"to start another job from its weights, submit a spec with train.init_from={job.id}",
        )
    return ledger.resume(job.id)


def _most_workers(cluster: Connection) -> int:
    """Warm processes that are of use on one node: no more than the biggest has CPUs."""
    return max(1, int(max((node.total.get("CPU", 1.0) for node in cluster.nodes()), default=1.0)))


def _summary(place: Place, ledger: Ledger, job: Job, runner: JobRunner, synced: Synced, seconds: float) -> Summary:
    result, folder = runner.ending.result, place.home.job(job.id)
    progress = runner.reporter.progress if runner.reporter else None
    saved = runner.reporter.saved if runner.reporter else None
    model = model_folder(folder)
    return Summary(
        job=job.id,
        state=job.state.value,
        reason=job.reason.value if job.reason else "",
        message=job.message,
        attempts=len(ledger.attempts(job.id)),
        seconds=round(seconds, 2),
        run_id=synced.run_id,
        experiment_id=synced.experiment_id,
        tracking_uri=place.tracking_uri,
        experiment=JobSpec.from_stored(dict(job.spec)).experiment_name,
        unsent=synced.left,
        metrics=dict(result.get("metrics") or (progress.metrics if progress else {})),
        best=result.get("best"),
        model=str(model) if model.exists() else None,
        checkpoint=str(folder / saved.path) if saved else None,
    )
