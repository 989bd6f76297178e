"""Ships what an attempt's workers print to where it outlives the cluster, from the files in the job's folder.

By offset: the other side says how much it has, so nothing is lost or doubled when it was away, or when the agent was.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from epochal.agent.port import AWAY, JobSource
from epochal.backoff import pause_after
from epochal.engine.log_tail import read_from
from epochal.errors import EpochalError
from epochal.ledger.states import EventKind
from epochal.ledger.values import Held
from epochal.redaction import said

EVERY_SECONDS = 1.0
IDLE_SECONDS = 0.5
"""As long where nothing came: what is printed then is seen within a second."""

_MAX_WAIT_SECONDS = 15.0
_NAME = re.compile(r"rank-(\d+)\.log")
_SHIPPED = "shipped"

_logger = logging.getLogger(__name__)


class LogShipper:
    """Ships the logs of one attempt, at most once a second between ``start`` and ``close``."""

    def __init__(self, source: JobSource, lease: Held, folder: Path) -> None:
        self._source = source
        self._lease = lease
        self._folder = attempt_logs(folder, lease.epoch)
        self._sent: dict[int, int] = {}
        self._given_up: set[int] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def start(self) -> None:
        """Ship from a thread."""
        threading.Thread(target=self._run, name=f"logs-{self._lease.job_id}", daemon=True).start()

    def close(self) -> None:
        """Ship no more by itself. What is left is for ``finish``."""
        self._closed.set()

    def ship(self) -> bool:
        """Send what came since the last time, and tell whether there was anything.

        Raises:
            UnreachableError, AuthError: the source does not answer; nothing is lost, and the next call goes on.
            OSError: a log cannot be read.
        """
        with self._lock:
            before = dict(self._sent)
            for rank, path in _logs(self._folder):
                if rank not in self._given_up:
                    if path.is_symlink():
                        self._give_up(rank, "it is a link")
                    else:
                        self._ship_one(rank, path)
            return self._sent != before

    def finish(self) -> None:
        """``ship``, and leave a note that all of it was sent: the attempt is over."""
        self.ship()
        if self._folder.is_dir():
            with suppress(OSError):  # the disk is full: it is only looked at once more
                (self._folder / _SHIPPED).touch()

    def finish_by(self, deadline: float) -> None:
        """``finish``, but not for ever: where a log cannot be read, or the ledger answers and the log store still does
        not after ``deadline`` (``time.monotonic``), an event says so, and the agent's housekeeping ships it later.

        Raises:
            UnreachableError, AuthError: not yet: call it again.
        """
        try:
            self.finish()
        except (*AWAY, OSError) as error:
            if isinstance(error, AWAY) and time.monotonic() < deadline:
                raise
            message = (
                f"the end of the logs could not be stored ({said(error)}): "
                f"it is in {self._folder} on the agent's machine, and is sent once that works"
            )
            self._source.note(self._lease, EventKind.LOGS_DELAYED, message, key=f"logs-delayed-{self._lease.epoch}")

    def _run(self) -> None:
        failures, wait = 0, IDLE_SECONDS
        while not self._closed.wait(wait):
            try:
                failures, wait = 0, EVERY_SECONDS if self.ship() else IDLE_SECONDS
            except EpochalError:
                failures += 1
                wait = pause_after(failures, 2 * EVERY_SECONDS, _MAX_WAIT_SECONDS)
            except OSError as error:
                _logger.warning("the logs of %s cannot be read: %s", self._lease.job_id, said(error))
                wait = _MAX_WAIT_SECONDS

    def _ship_one(self, rank: int, path: Path) -> None:
        offset = self._sent.get(rank, 0)
        while data := read_from(path, offset):
            try:
                told = self._source.append_log(self._lease, rank, offset, data)
            except AWAY:
                raise
            except EpochalError as error:
                self._give_up(rank, str(error))
                return
            if told < offset and not read_from(path, told):
                self._give_up(rank, f"what is missing there from byte {told} on is not here any more")
                return
            offset = self._sent[rank] = told

    def _give_up(self, rank: int, why: str) -> None:
        self._given_up.add(rank)
        _logger.warning("the log of rank %d of %s is shipped no further: %s", rank, self._lease.job_id, why)


def logs_folder(folder: Path) -> Path:
    return folder / "logs"


def attempt_logs(folder: Path, epoch: int) -> Path:
    return logs_folder(folder) / f"attempt-{epoch}"


def unshipped(folder: Path) -> Iterator[int]:
    """The attempts of the job in ``folder`` whose logs were not sent to their end."""
    for logs in logs_folder(folder).glob("attempt-*"):
        number = logs.name.removeprefix("attempt-")
        if number.isdigit() and not (logs / _SHIPPED).exists():
            yield int(number)


def _logs(folder: Path) -> Iterator[tuple[int, Path]]:
    for path in sorted(folder.glob("rank-*.log")) if folder.is_dir() else ():
        if found := _NAME.fullmatch(path.name):
            yield int(found[1]), path
