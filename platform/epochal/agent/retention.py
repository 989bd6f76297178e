"""Deletes what jobs that ended long ago have left in the storage root."""

from __future__ import annotations

import logging
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path

from epochal.agent.logs import logs_folder
from epochal.agent.port import JobSource
from epochal.errors import ConflictError, NotFoundError, UsageError
from epochal.files import write_atomically
from epochal.ledger.values import Job
from epochal.redaction import said
from epochal.settings import Home, Retention
from epochal.tracking.desired_run import forget_checkpoints
from epochal.tracking.metric_spool import spool_folder
from epochal.tracking.sync_state import can_still_be_sent
from epochal.tracking.trial_runs import trials_folder
from epochal.training import checkpoint

EVERY_SECONDS = 3600.0
ENDED = "ended"
_DOOMED = ".pruned-"

_logger = logging.getLogger(__name__)


class Pruner:
    """Prunes one storage root. ``needed`` gives the digests of code that some job may still start from."""

    def __init__(
        self, source: JobSource, home: Home, retention: Retention, needed: Callable[[], Collection[str]]
    ) -> None:
        self._source = source
        self._home = home
        self._retention = retention
        self._needed = needed

    def prune(self) -> Iterator[str]:
        """Delete what is older than its kind is kept; what that was.

        Raises:
            UnreachableError: the source does not answer.
        """
        now = self._source.now()  # the clock by which jobs end; that of this machine may be days ahead
        for folder in sorted(self._home.storage.glob("jobs/*")):
            try:
                yield from self._of_job(folder, now)
            except (OSError, ValueError, TypeError) as error:  # a damaged folder holds up no other
                _logger.warning("%s cannot be pruned: %s", folder, said(error))
        yield from self._packages()

    def _of_job(self, folder: Path, now: float) -> Iterator[str]:
        for left in folder.glob(f"{_DOOMED}*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        trials = [one for one in trials_folder(folder).glob("*") if one.is_dir()]
        kept = {
            "checkpoints": ([one / checkpoint.FOLDER for one in (folder, *trials)], self._retention.checkpoints),
            "spools": ([spool_folder(one) for one in (folder, *trials)], self._retention.spools),
            "logs": ([logs_folder(folder)], self._retention.logs),
        }
        there = {
            kind: (found, seconds)
            for kind, (paths, seconds) in kept.items()
            if seconds is not None and (found := [path for path in paths if path.is_dir()])
        }
        if not there or (ended := self._ended_at(folder)) is None:
            return
        due = {
            kind: found
            for kind, (found, seconds) in there.items()
            if now - ended >= seconds and not (kind == "spools" and can_still_be_sent(folder))
        }
        if not due or self._goes_on(folder):
            return
        for kind, found in due.items():
            for path in found:
                doomed = folder / f"{_DOOMED}{secrets.token_hex(4)}"
                path.rename(doomed)  # nobody sees half of it
                shutil.rmtree(doomed, ignore_errors=True)
            if kind == "checkpoints":
                forget_checkpoints(folder)
            yield f"{kind} of {folder.name}"

    def _ended_at(self, folder: Path) -> float | None:
        """When the job came to its final state; None where it may go on, or is none of this source's.

        It is noted in the folder, for when the source has forgotten the job.
        """
        note = folder / ENDED
        with suppress(FileNotFoundError):
            return float(note.read_text(encoding="ascii"))
        job = self._job(folder)
        if job is None or not job.state.is_terminal:
            return None
        write_atomically(note, str(job.entered_at))
        return job.entered_at

    def _goes_on(self, folder: Path) -> bool:
        """Whether the job is a sweep that was extended since it was noted that it has ended: it may wait in the queue
        for long."""
        job = self._job(folder)
        if goes_on := job is not None and not job.state.is_terminal:
            (folder / ENDED).unlink(missing_ok=True)
        return goes_on

    def _job(self, folder: Path) -> Job | None:
        """None where the source has none of exactly this id."""
        with suppress(NotFoundError, ConflictError, UsageError):  # the last: no job can be called so
            job = self._source.job(folder.name)
            return job if job.id == folder.name else None
        return None

    def _packages(self) -> Iterator[str]:
        """Code by when a job last started from it: who starts from it again fetches it again, if that is possible."""
        if self._retention.code is None:
            return
        before = time.time() - self._retention.code
        old = sorted(one for one in self._home.packages.glob("*.zip") if _changed_at(one) < before)
        needed = self._needed() if old else ()
        for package in old:
            if package.stem not in needed:
                package.unlink(missing_ok=True)
                yield f"code {package.stem[:12]}"


def _changed_at(path: Path) -> float:
    """Now, where another has just deleted it."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()
