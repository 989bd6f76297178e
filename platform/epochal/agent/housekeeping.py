"""Finishes, at an agent's start and now and then, what one that died could not: open runs, unsent metrics, logs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

from epochal.agent.job_runner import Agent
from epochal.agent.kept_secrets import folders_with_secrets, forget_secrets, secret_of
from epochal.agent.logs import LogShipper, unshipped
from epochal.agent.port import AWAY
from epochal.agent.retention import EVERY_SECONDS as EVERY_PRUNING_SECONDS
from epochal.agent.retention import Pruner
from epochal.agent.run_closer import tell_runs
from epochal.errors import EpochalError, NotFoundError, UsageError
from epochal.ledger.states import EventKind
from epochal.ledger.values import Job, LeaseKey
from epochal.redaction import said
from epochal.tracking.reconcile import JobFolders
from epochal.tracking.sync_state import readable

EVERY_SECONDS = 60.0
_SYNC_SECONDS = 20.0

_logger = logging.getLogger(__name__)


class Housekeeper:
    """Looks after the folders of jobs that nobody holds, and deletes what is old.

    ``held`` gives the ids of the jobs that this agent carries, ``code`` the digests of what they started from.
    """

    def __init__(self, agent: Agent, held: Callable[[], Collection[str]], code: Callable[[], Collection[str]]) -> None:
        self._agent = agent
        self._held = held
        self._pruner = Pruner(agent.source, agent.home, agent.retention, code)
        self._prunes_at = 0.0
        self._folders = JobFolders(agent.home.storage, self._idle)
        self._unknown: set[str] = set()
        self.unsent_bytes = 0
        """Of metrics in its storage, which MLflow did not have at the end of the newest round."""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closed.set()

    def tidy(self) -> None:
        """One round.

        Raises:
            UnreachableError, AuthError: the source does not answer.
        """
        for folder in sorted(self._agent.home.storage.glob("jobs/*")):
            try:
                self._ship(folder)
            except OSError as error:
                _logger.warning("the logs in %s cannot be shipped: %s", folder, said(error))
            except AWAY as error:  # perhaps the log store alone, which what follows can do without
                _logger.info("logs wait for the server: %s", error)
                break
        self._folders.close_desired_runs()
        self._folders.send(self._agent.tracking_uri, _SYNC_SECONDS)
        self.unsent_bytes = self._folders.unsent_bytes()
        self._folders.tell_news(self._tell)
        for folder in folders_with_secrets(self._agent.home.storage):
            with readable(folder):
                if job := self._idle(folder.name):
                    self._tell_runs(job, folder)
                    forget_secrets(folder, job.epoch)

    def _run(self) -> None:
        wait = 0.0
        while not self._closed.wait(wait):
            wait = EVERY_SECONDS
            try:
                self.tidy()
                self._prune()
            except AWAY as error:
                _logger.info("housekeeping waits for the server: %s", error)
            except Exception:
                _logger.exception("housekeeping failed")

    def _prune(self) -> None:
        if time.monotonic() >= self._prunes_at:
            for what in self._pruner.prune():
                _logger.info("deleted the %s, as old as --retain says", what)
                self._folders = JobFolders(self._agent.home.storage, self._idle)  # MLflow hears which checkpoints went
            self._prunes_at = time.monotonic() + EVERY_PRUNING_SECONDS

    def _ship(self, folder: Path) -> None:
        """What those attempts printed that are over."""
        attempts = list(unshipped(folder))
        job = self._job(folder.name) if attempts else None
        if job is None:
            return
        for attempt in attempts:
            if job.state.is_active and attempt == job.epoch:
                continue
            lease = LeaseKey(job.id, attempt, self._agent.name, secret_of(folder, attempt))
            LogShipper(self._agent.source, lease, folder).finish()

    def _tell(self, job_id: str, news: str) -> bool:
        """Whether it could be told: by the secret of the newest attempt, where this agent has kept it."""
        if (lease := self._lease(self._job(job_id))) is None:
            return False
        self._agent.source.note(lease, EventKind.TRACKING, news, key=f"tracking-{lease.epoch}-{time.time()}")
        return True

    def _tell_runs(self, job: Job, folder: Path) -> None:
        """What MLflow has of the job by now, which its attempt did not live to hear."""
        if (lease := self._lease(job)) is None:
            return
        try:
            tell_runs(self._agent.source, lease, folder, job.run_id)
        except AWAY:
            raise
        except EpochalError as error:  # it has gone on elsewhere
            _logger.info("%s: the ledger does not hear of its runs: %s", lease.job_id, error)

    def _lease(self, job: Job | None) -> LeaseKey | None:
        """That of the newest attempt, where this agent has kept its secret."""
        if job is None or not (secret := secret_of(self._agent.home.job(job.id), job.epoch)):
            return None
        return LeaseKey(job.id, job.epoch, self._agent.name, secret)

    def _idle(self, job_id: str) -> Job | None:
        job = self._job(job_id)
        return None if job is None or job.state.is_active else job

    def _job(self, job_id: str) -> Job | None:
        """The job, where this agent's source has it and this agent does not carry it."""
        if job_id in self._unknown:
            return None
        try:
            job = self._agent.source.job(job_id)
        except (NotFoundError, UsageError):  # of another ledger, or of none: no job can be called so
            self._unknown.add(job_id)
            return None
        except AWAY:
            raise
        except EpochalError as error:
            _logger.warning("%s: %s", job_id, error)
            return None
        return None if job.id != job_id or job_id in self._held() else job
