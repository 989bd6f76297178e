"""Keep MLflow up to date with a job's folder while the job runs, from a thread that nobody waits for."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from epochal.backoff import pause_after
from epochal.errors import EpochalError
from epochal.redaction import named, said, trace
from epochal.tracking.desired_run import CheckpointPointer, DesiredRun, note_checkpoint
from epochal.tracking.sent_trials import SweepTrials
from epochal.tracking.sync_state import SyncState, can_be_sent, readable, tell_news
from epochal.tracking.syncer import Synced, sync
from epochal.urls import without_password

EVERY_SECONDS = 1.0
MAX_WAIT_SECONDS = 30.0

_NICENESS = 10
"""Of the tracker's thread: what MLflow's client computes (for a trial of a sweep 25 ms and more) gets a tenth of a core
where trainings want all of it. Not less: the thread may hold the interpreter."""

_logger = logging.getLogger(__name__)


class Tracker:
    """Syncs ``folder`` with the tracking server at ``uri``, about once a second, less often while that is down.

    The folder must hold a ``DesiredRun``. No method raises because of MLflow. ``notice`` is told once when MLflow does
    not take what it is sent, and why, and once when it does again; it is called from the tracker's thread, and again
    where it raised because nobody could be told.
    """

    def __init__(
        self, uri: str, folder: Path, notice: Callable[[str], None] = _logger.warning, every: float = EVERY_SECONDS
    ) -> None:
        self._uri = uri
        self._folder = folder
        self._trials = SweepTrials(folder)
        self._notice = notice
        self._every = every
        self._desired = DesiredRun.load(folder)
        self._desired_lock = threading.Lock()
        self._wake = threading.Condition()
        self._until: float | None = None
        self._failures = 0
        self._synced_once = False
        known = SyncState.load(folder)
        self._last = Synced(known.run_id, "", "everything", "nothing was sent yet", experiment_id=known.experiment_id)
        self._thread = threading.Thread(target=self._run, name="epochal-tracker", daemon=True)
        self._thread.start()

    @property
    def run_id(self) -> str:
        """The MLflow run, empty until it exists there."""
        return self._last.run_id

    @property
    def experiment_id(self) -> str:
        """MLflow's id of the run's experiment, empty until the run exists there."""
        return self._last.experiment_id

    @property
    def last(self) -> Synced:
        """What came of the newest sync."""
        return self._last

    def update(self, **changes: Any) -> DesiredRun:
        """Change the desired run (see ``DesiredRun.changed``); MLflow follows."""
        with self._desired_lock:
            self._desired = self._desired.changed(**changes)
            self._desired.save(self._folder)
            return self._desired

    def checkpoint(self, pointer: CheckpointPointer) -> None:
        """Note a complete checkpoint in the artifact ``checkpoints.json``."""
        with self._desired_lock:
            note_checkpoint(self._folder, pointer)

    def close(self, deadline_seconds: float = 20.0) -> Synced:
        """Send what is left, for at most ``deadline_seconds``, and end the thread.

        What cannot be sent stays in the folder: see ``left`` and ``problem`` of the result, and ``sync_all``.
        """
        until = time.monotonic() + deadline_seconds
        with self._wake:
            self._until = until
            self._wake.notify()
        self._thread.join(deadline_seconds + 0.5)
        if self._thread.is_alive():
            return replace(self._last, left=self._last.left or "something", problem="out of time")
        return self._last

    def _run(self) -> None:
        if sys.platform == "linux":  # where a thread has a priority of its own
            mine = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, mine, max(_NICENESS, os.getpriority(os.PRIO_PROCESS, mine)))
        while True:
            with self._wake:
                if self._until is None:
                    self._wake.wait(self._pause())
                until = self._until
            if until is not None:
                self._send_rest(until)
                return
            self._sync(None)

    def _send_rest(self, until: float) -> None:
        pause = min(0.3, self._every)
        self._sync(until)
        while self._last.pending and time.monotonic() + pause < until:
            time.sleep(pause)
            self._sync(until)

    def _pause(self) -> float:
        """Seconds to the next sync: none before the first, longer with every failure."""
        if not self._synced_once:
            return 0.0
        return pause_after(self._failures, 2 * self._every, MAX_WAIT_SECONDS) if self._failures else self._every

    def _sync(self, until: float | None) -> None:
        # Between two attempts someone else may have changed what the run says.
        afresh = not self._synced_once
        self._last = _tried(self._uri, self._folder, self._last, until=until, afresh=afresh, trials=self._trials)
        self._synced_once = True
        self._failures = self._failures + 1 if self._last.obstacle else 0
        try:
            if self._last.has_news:
                tell_news(self._folder, self._notice)
        except (EpochalError, OSError) as error:  # told with the next sync, or by whoever looks after the folder then
            _logger.info("%s has not heard how MLflow takes its run: %s", self._folder.name, said(error))
        except Exception:  # the thread goes on: what MLflow lacks is worth more than a word about it
            _logger.error("%s has not heard how MLflow takes its run\n%s", self._folder.name, trace())


def _tried(uri: str, folder: Path, before: Synced, **how: Any) -> Synced:
    """``sync``; where that fails for another reason than MLflow, such as a damaged file, what it lacked ``before``."""
    try:
        return sync(uri, folder, **how)
    except Exception as error:
        _logger.error("what MLflow lacks of this job stays in %s\n%s", folder, trace())
        return replace(before, left="something", problem=" ".join(named(error).split()), obstacle="fault")


def pending_folders(storage: Path) -> Iterator[Path]:
    """The folders of the jobs under a storage root that have something to send."""
    return (folder for folder in sorted(storage.glob("jobs/*")) if can_be_sent(folder))


def sync_all(uri: str, storage: Path, deadline_seconds: float = 20.0) -> dict[str, Synced]:
    """Send what earlier commands could not: for each job with something left, by job id.

    mlflow is imported only where there is something to send.
    """
    return sync_folders(uri, pending_folders(storage), deadline_seconds)


def sync_folders(uri: str, folders: Iterable[Path], deadline_seconds: float = 20.0) -> dict[str, Synced]:
    """Send what is left in these jobs' folders, by job id.

    A job is sent to where its run is, else to ``uri``. A server that does not answer is not asked again for the jobs
    that follow.
    """
    until = time.monotonic() + deadline_seconds
    results: dict[str, Synced] = {}
    down: dict[str, str] = {}
    for folder in folders:
        with readable(folder):
            state = SyncState.load(folder)
            target = state.uri if state.run_id and state.uri != without_password(uri) else uri
            problem = down.get(target, "out of time")
            synced = Synced(state.run_id, "", "something", problem, reachable=target not in down)
            if synced.reachable and time.monotonic() <= until:
                synced = _tried(target, folder, synced, until=until)
                if not synced.reachable:
                    down[target] = synced.problem
            results[folder.name] = synced
    return results
