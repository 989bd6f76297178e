"""Puts right, at an agent's start and now and then, what one that died could not: run records, unsent metrics, logs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from epochal.agent.job_runner import Agent
from epochal.agent.logs import LogShipper, secret_of, unshipped
from epochal.agent.retention import EVERY_SECONDS as EVERY_PRUNING_SECONDS
from epochal.agent.retention import Pruner
from epochal.errors import EpochalError, NotFoundError, UnreachableError
from epochal.ledger.values import Job, Lease
from epochal.tracking.record import RunRecord, closed_by
from epochal.tracking.shipped import is_pending
from epochal.tracking.tracker import job_folders, sync_folders

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
        self._done: set[str] = set()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closed.set()

    def tidy(self) -> None:
        """One round.

        Raises:
            UnreachableError: the source does not answer.
        """
        pending = [folder for folder, record in self._left() if self._is_due(folder, record)]
        if pending:
            sync_folders(self._agent.tracking_uri, pending, _SYNC_SECONDS)

    def _run(self) -> None:
        wait = 0.0
        while not self._closed.wait(wait):
            wait = EVERY_SECONDS
            try:
                self.tidy()
                self._prune()
            except UnreachableError as error:
                _logger.info("housekeeping waits for the server: %s", error)
            except Exception:
                _logger.exception("housekeeping failed")

    def _prune(self) -> None:
        if time.monotonic() >= self._prunes_at:
            for what in self._pruner.prune():
                _logger.info("deleted the %s, as old as --retain says", what)
            self._prunes_at = time.monotonic() + EVERY_PRUNING_SECONDS

    def _left(self) -> Iterator[tuple[Path, RunRecord]]:
        for folder, record in job_folders(self._agent.home.storage):
            if folder.name not in self._done and folder.name not in self._held():
                yield folder, record

    def _is_due(self, folder: Path, record: RunRecord) -> bool:
        """See ``_needs_sending``; a folder that cannot be read or written holds up no other."""
        try:
            return self._needs_sending(folder, record)
        except OSError as error:
            _logger.warning("%s cannot be tidied: %s", folder, error)
            return False

    def _needs_sending(self, folder: Path, record: RunRecord) -> bool:
        """Whether MLflow lacks something of it, now that the record and the logs are right."""
        open_still, attempts = record.status == "RUNNING", list(unshipped(folder))
        job = self._job(folder.name) if open_still or attempts else None
        if job is not None and folder.name not in self._held():
            record = self._closed_record(folder, record, job) if open_still else record
            for attempt in attempts:
                self._ship(folder, job, attempt)
        pending = is_pending(folder)
        if not pending and record.status != "RUNNING" and not any(True for _ in unshipped(folder)):
            self._done.add(folder.name)
        return pending

    def _closed_record(self, folder: Path, record: RunRecord, job: Job) -> RunRecord:
        if changes := closed_by(job.state, job.reason):
            record = record.changed(**changes, end_time=job.entered_at)
            record.save(folder)
        return record

    def _ship(self, folder: Path, job: Job, attempt: int) -> None:
        """What an attempt printed that is over, by its number."""
        if attempt == job.epoch and job.state.is_active:
            return
        lease = Lease(job, attempt, self._agent.name, 0.0, secret_of(folder, attempt))
        LogShipper(self._agent.source, lease, folder).finish()

    def _job(self, job_id: str) -> Job | None:
        try:
            return self._agent.source.job(job_id)
        except NotFoundError:  # of another ledger
            self._done.add(job_id)
        except UnreachableError:
            raise
        except EpochalError as error:
            _logger.warning("%s: %s", job_id, error)
        return None
