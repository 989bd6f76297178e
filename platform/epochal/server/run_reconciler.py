"""MLflow runs and job folders, held against the ledger: what the reconciler does about them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from epochal.errors import ConflictError, NotFoundError, UnreachableError
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import EventKind, JobState, Reason
from epochal.ledger.values import Job
from epochal.tracking.health import answers
from epochal.tracking.reconcile import DELETED, RUN_STATUS, Difference, JobFolders, Truth, correct, differences

_RECENT = 200
"""How many of the newest jobs that have ended are looked at, once each. Of older ones only a run that is open still."""
_AT_ONCE = 50
_DEADLINE_SECONDS = 20.0
_OVER = tuple(state for state in JobState if state.is_terminal)


class RunReconciler:
    """Compares with the tracking server at ``uri`` and the folders under ``storage``.

    ``closing``: seconds that an agent gets to close its run after the job's state has changed. An agent that died needs
    none.
    """

    def __init__(self, ledger: Ledger, uri: str, storage: Path, closing: float) -> None:
        self._ledger = ledger
        self._uri = uri
        self._folders = JobFolders(storage, self._idle)
        self._closing = closing
        self._agreed: set[str] = set()
        self._has_runs = False

    def mlflow_answers(self) -> bool | None:
        """See ``tracking.health``."""
        return answers(self._uri)

    def differences(self) -> list[Difference]:
        """The runs that say something else than the ledger, and may be corrected now, and those that somebody deleted.

        Raises:
            UnreachableError: the ledger or the tracking server does not answer.
        """
        # Of a ledger that holds many, the newest tell whether any job was ever started.
        self._has_runs = self._has_runs or any(job.epoch for job in self._ledger.jobs(limit=_RECENT))
        if not self._has_runs:
            return []  # and mlflow is not imported
        over = self._ledger.jobs(states=_OVER, limit=_RECENT)
        running = self._ledger.jobs(states=[JobState.RUNNING])
        looked_at = [job for job in over if job.id not in self._agreed][:_AT_ONCE]
        known = {job.run_id: job.id for job in (*running, *looked_at) if job.run_id}
        now = self._ledger.now()
        found = differences(self._uri, known, lambda job, run: self._truth(job, run, now))
        wrong = {one.job_id for one in found if one.found != DELETED}
        agreed = {job.id for job in looked_at if job.id not in wrong and self._is_settled(job, now)}
        # Of those alone that are among the newest still: it never grows beyond them.
        self._agreed = self._agreed.intersection(job.id for job in over) | agreed
        return found

    def correct(self, difference: Difference) -> bool:
        """Do it, unless the job has changed since; whether it was done.

        Raises:
            UnreachableError: the ledger or the tracking server does not answer.
        """
        if difference.found == DELETED:  # by a person, who can restore it
            return False
        now = self._ledger.now()
        if not difference.is_still(lambda job, run: self._truth(job, run, now)):
            return False
        correct(self._uri, difference)
        return True

    def unsent(self) -> list[Path]:
        """Folders of jobs that hold what MLflow does not have, while no agent holds the job."""
        return self._folders.unsent()

    def send_unsent(self) -> Iterator[tuple[str, str]]:
        """Send it: job id and what was done.

        Raises:
            UnreachableError: the ledger, or, once all was tried, the tracking server does not answer.
        """
        problem = ""
        for job_id, synced in self._folders.send(self._uri, _DEADLINE_SECONDS).items():
            if synced.pending and not synced.deleted:  # which `epochal doctor` tells
                problem = synced.problem
            elif not synced.pending:
                yield job_id, "what was left of its metrics was sent to MLflow"
        self._folders.tell_news(lambda job_id, news: self._ledger.note(job_id, EventKind.TRACKING, news))
        if problem:
            raise UnreachableError(f"what is left in storage cannot be sent to MLflow: {problem}")

    def _truth(self, job_id: str, run_id: str, now: float) -> Truth | None:
        """What the run should say; None where it is not this ledger's to say, or an agent may be about to say it."""
        job = self._job(job_id)
        if job is None or job.run_id not in (None, run_id) or not self._is_settled(job, now):
            return None
        status = RUN_STATUS.get(job.state)
        return Truth(status, job.reason or "", job.entered_at) if status else None

    def _job(self, job_id: str) -> Job | None:
        try:
            job = self._ledger.job(job_id)
        except (NotFoundError, ConflictError):
            return None
        return job if job.id == job_id else None  # a shorter id of another ledger may fit one of ours

    def _is_settled(self, job: Job, now: float) -> bool:
        return job.reason is Reason.INTERRUPTED or now - job.entered_at >= self._closing

    def _idle(self, job_id: str) -> Job | None:
        job = self._job(job_id)
        idle = job is not None and not job.state.is_active and self._is_settled(job, self._ledger.now())
        return job if idle else None
