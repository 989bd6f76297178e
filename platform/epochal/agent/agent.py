"""The agent: takes a job from the ledger and runs it on a Ray cluster, one attempt after the other, to its end."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass

from epochal.agent.attempt import Attempt, Ending
from epochal.agent.lease_keeper import LEASE_SECONDS, LeaseKeeper
from epochal.agent.observer import Observer
from epochal.agent.retry import may_retry
from epochal.agent.run_tracking import RunTracking
from epochal.agent.submission import origin_of, package_of
from epochal.engine.connection import Connection
from epochal.engine.gang import Gang, GangRequest, form
from epochal.engine.payload import TrainPayload
from epochal.errors import CapacityError, ConflictError, StaleLeaseError
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import JobState, Outcome, Reason
from epochal.ledger.values import Job, Lease
from epochal.settings import Home
from epochal.spec.job import JobSpec
from epochal.tracking.record import artifacts_folder, write_atomically

_FORM_SECONDS = 60.0
"""How long a gang may take to form where the spec sets no ``limits.max_pending``."""


@dataclass(frozen=True)
class Agent:
    """What carries jobs: a name in the ledger, a cluster to run them on, and where their traces go."""

    name: str
    ledger: Ledger
    cluster: Connection
    home: Home
    tracking_uri: str


class Carrier:
    """Carries one job from the queue over as many attempts as its budgets allow.

    The gang's place on the cluster and the run's tracking are kept from one attempt to the next.
    """

    def __init__(self, agent: Agent, job: Job, observer: Observer) -> None:
        self._agent = agent
        self._ledger = agent.ledger
        self._observer = observer
        self._job = job
        self._spec = JobSpec.from_stored(dict(job.spec))
        self._folder = agent.home.job(job.id)
        self._gang: Gang | None = None
        self._timed_out = False
        self.tracking = RunTracking(agent.tracking_uri, self._folder, job.id, self._spec, observer.notice)
        self.attempt: Attempt | None = None
        self.ending = Ending(None)

    def run(self) -> Job:
        """Lease the job and run it, until it is no longer in the queue; the job as it is then."""
        try:
            while (lease := self._ledger.lease(self._agent.name, LEASE_SECONDS, self._job.id)) is not None:
                self._observer.state(lease.job)
                self._run_once(lease)
        finally:
            if self._gang is not None:
                self._gang.close()
        job = self._ledger.job(self._job.id)
        self._observer.state(job)
        return job

    def interrupt(self) -> None:
        """Have the training save its state and end; the job is then PAUSED. Safe to call from another thread."""
        with suppress(ConflictError):  # it has just ended
            self._ledger.request_pause(self._job.id, "interrupted at the keyboard")
        self._stop()

    def _run_once(self, lease: Lease) -> None:
        limit = self._time_limit(lease.job)
        try:
            with LeaseKeeper(self._ledger, lease, on_stop=self._stop, on_lost=self._kill):
                self.ending = self._train(lease)
                self._settle(lease, self.ending)
        except StaleLeaseError as error:
            self._observer.notice(f"{error}: another agent has taken the job over")
        except CapacityError as error:
            self._ledger.finish(lease, JobState.FAILED, Reason.PENDING_TIMEOUT, f"{error}; {error.hint}")
        except BaseException as error:
            self._kill()
            with suppress(ConflictError):
                self._ledger.pause(lease, Reason.INTERRUPTED, f"the agent failed: {type(error).__name__}: {error}")
            raise
        finally:
            if limit is not None:
                limit.cancel()

    def _train(self, lease: Lease) -> Ending:
        if self._gang is None:
            self._gang = form(self._agent.cluster, self._request(), self._pending_seconds())
        self.attempt = Attempt(self._ledger, lease, self.tracking, self._observer)
        self.tracking.update(tags={"epochal.attempts": str(lease.epoch)})
        payload = TrainPayload(self._job.spec, origin_of(self._job).folder, resume=True)
        return self.attempt.run(self._gang, payload, self._folder)

    def _settle(self, lease: Lease, ending: Ending) -> None:
        """Tell the ledger how the attempt ended, which decides whether there is another."""
        if ending.reason is None and self._timed_out:
            message = f"limits.max_duration of {self._spec.limits.max_duration} is used up"
            self._ledger.finish(lease, JobState.FAILED, Reason.TIMEOUT, message)
        elif ending.reason is None:
            self._settle_stop(lease)
        elif ending.reason is Reason.COMPLETED:
            self._ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED, ending.message)
        else:
            self._settle_failure(lease, ending.reason, ending)

    def _settle_stop(self, lease: Lease) -> None:
        if self._ledger.job(self._job.id).state is JobState.STOPPING:
            self._ledger.stopped(lease)
        else:  # by a marker in the job's folder that is not the ledger's
            self._ledger.pause(lease, Reason.INTERRUPTED, "the training was asked to stop from outside")

    def _settle_failure(self, lease: Lease, reason: Reason, ending: Ending) -> None:
        if ending.traceback:
            write_atomically(artifacts_folder(self._folder) / "failure.txt", ending.traceback)
        attempts = self._ledger.attempts(self._job.id)
        failed = [attempt.reason for attempt in attempts if attempt.outcome is Outcome.FAILED and attempt.reason]
        if may_retry(self._spec.retry, [*failed, reason]):
            self._observer.notice(f"attempt {lease.epoch} failed ({reason}): {ending.message}; trying again")
            self._ledger.retry(lease, reason, ending.message)
        else:
            self._ledger.finish(lease, JobState.FAILED, reason, ending.message)

    def _request(self) -> GangRequest:
        resources = self._spec.resources
        return GangRequest(
            job=self._job.id,
            workers=(resources.min_workers, resources.max_workers),
            cpus=resources.cpus_per_worker,
            gpus=resources.gpus_per_worker,
            memory=resources.memory_per_worker,
            env=self._spec.env,
            package=package_of(self._agent.home, origin_of(self._job)),
        )

    def _pending_seconds(self) -> float:
        limit = self._spec.limits.max_pending
        return limit.seconds if limit else _FORM_SECONDS

    def _time_limit(self, job: Job) -> threading.Timer | None:
        """A running timer that ends the training when the job's running time is used up."""
        limit = self._spec.limits.max_duration
        if limit is None:
            return None
        timer = threading.Timer(max(0.0, limit.seconds - job.ran_seconds), self._time_is_up)
        timer.daemon = True
        timer.start()
        return timer

    def _time_is_up(self) -> None:
        self._timed_out = True
        self._stop()

    def _stop(self) -> None:
        if self._gang is not None:
            self._gang.stop()

    def _kill(self) -> None:
        if self._gang is not None:
            self._gang.close()
            self._gang = None
