"""Reconciles by itself what others left behind: leases that ran out, jobs that waited too long, runs that say something
else than the ledger, metrics that were never sent.

``tick`` is quick and comes every second; ``catch_up``, which talks to MLflow, and ``prune``, which deletes from the
storage, have threads of their own, so that neither delays a lease by not answering. Several servers on one ledger may
each have a reconciler: whatever one does is a conditional change, and another then finds nothing left to do.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from epochal.errors import EpochalError
from epochal.ledger.ledger import Ledger
from epochal.ledger.values import LEASE_SECONDS
from epochal.redaction import said
from epochal.server.renewals import Renewals
from epochal.server.run_reconciler import RunReconciler
from epochal.settings import home
from epochal.tracking.reconcile import DELETED

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timing:
    """In seconds.

    ``lease``, ``late``: see ``Renewals``. ``closing``: how long an agent gets to close a run by itself.
    """

    tick: float = 1.0
    catch_up: float = 30.0
    prune: float = 3600.0
    lease: float = LEASE_SECONDS
    late: float = 5.0
    closing: float = 30.0


KINDS = ("lease", "max_pending", "spool", "run", "retention")
"""Of what it does."""

PARTS = ("leases", "queue", "spools", "runs", "retention")
_OF_MLFLOW = ("spools", "runs")


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be, and what the reconciler does about it. ``job_id`` is empty where the
    tracking server itself is the trouble."""

    kind: str
    job_id: str
    message: str


@dataclass
class Counts:
    """For ``/metrics``: what was done, by kind of finding; what failed, by part; and how often it was looked.

    ``succeeded``: when each part last did all that there was for it, by the monotonic clock; at first when it began. A
    part that has nothing to look at is not in it.
    ``mlflow_up``: whether the tracking server answered the last time; None where there is none, or nobody asked yet.
    """

    done: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    succeeded: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, time.monotonic()))
    ticks: int = 0
    catch_ups: int = 0
    mlflow_up: bool | None = None


class Reconciler:
    """The server's housekeeper. No error of one part stops another; each is told once, until the part works again.

    Args:
        mlflow_uri: the tracking server; without one MLflow is left alone.
        storage: the root of the jobs' folders, as far as this machine can see it; default: that of agents here.
        prune: deletes what is old, and says what that was.
    """

    def __init__(
        self,
        ledger: Ledger,
        mlflow_uri: str | None,
        *,
        timing: Timing | None = None,
        storage: Path | None = None,
        prune: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._ledger = ledger
        self._timing = timing or Timing()
        self.renewals = Renewals(self._timing.lease, self._timing.late)
        self._failing: set[str] = set()
        self._prune = prune
        self._runs: RunReconciler | None = None
        if mlflow_uri:
            self._runs = RunReconciler(ledger, mlflow_uri, storage or home().served.storage, self._timing.closing)
        self.counts = Counts(
            succeeded={part: time.monotonic() for part in PARTS if mlflow_uri or part not in _OF_MLFLOW}
        )

    def plan(self) -> list[Finding]:
        """What it would do now, were there no time of grace. Changes nothing.

        Raises:
            UnreachableError: the ledger does not answer.
        """
        lost = [Finding("lease", job.id, f"{job.owner} did not renew its lease") for job in self._ledger.overdue()]
        waited = [Finding("max_pending", job.id, "it waited too long") for job in self._ledger.overdue_pending()]
        return [*lost, *waited, *self._runs_planned()]

    def tick(self) -> None:
        """Expire leases and refuse jobs that waited too long."""
        self.counts.ticks += 1
        with self._guarded("leases", otherwise=self.renewals.interrupted):
            if self.renewals.were_possible(self._ledger.now()):
                for attempt in self._ledger.expire():
                    self._did("lease", attempt.job_id, attempt.message)
        with self._guarded("queue"):
            for job in self._ledger.reject_overdue():
                self._did("max_pending", job.id, job.message)

    def catch_up(self) -> None:
        """Have MLflow agree with the ledger, and send what was left in storage."""
        self.counts.catch_ups += 1
        if self._runs is None:
            return
        with self._guarded("spools"):
            for job_id, sent in self._runs.send_unsent():
                self._did("spool", job_id, sent)
        with self._guarded("runs"):
            self.counts.mlflow_up = self._runs.mlflow_answers()
            for difference in self._runs.differences():
                if self._runs.correct(difference):
                    self._did("run", difference.job_id, f"its run was {difference.found}: {difference.truth.status}")

    def prune(self) -> None:
        """Delete what jobs that ended long ago have left."""
        with self._guarded("retention"):
            for what in self._prune():
                self.counts.done["retention"] += 1
                _logger.info("deleted the %s, as old as --retain says", what)

    def run(self, stop: threading.Event) -> None:
        """Do all of it, over and over, until ``stop`` is set."""
        parts = ((self.catch_up, self._timing.catch_up), (self.prune, self._timing.prune))
        slow = [
            threading.Thread(target=_repeat, args=(*part, stop), name=part[0].__name__, daemon=True) for part in parts
        ]
        for thread in slow:
            thread.start()
        _repeat(self.tick, self._timing.tick, stop)
        for thread in slow:
            thread.join(self._timing.tick)

    def _runs_planned(self) -> Iterator[Finding]:
        if self._runs is None:
            return
        try:
            for folder in self._runs.unsent():
                yield Finding("spool", folder.name, f"{folder} holds what MLflow does not have yet")
            for one in self._runs.differences():
                if one.found == DELETED:
                    restore = f"`mlflow runs restore --run-id {one.run_id}` brings it back"
                    yield Finding(DELETED, one.job_id, f"its run was deleted in MLflow: {restore}")
                    continue
                yield Finding("run", one.job_id, f"its run {one.run_id} is {one.found}: should be {one.truth.status}")
        except EpochalError as error:
            yield Finding("tracking", "", str(error))

    def _did(self, kind: str, job_id: str, message: str) -> None:
        self.counts.done[kind] += 1
        _logger.info("%s: %s", job_id, message)

    @contextmanager
    def _guarded(self, part: str, otherwise: Callable[[], None] = lambda: None) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            otherwise()
            self.counts.errors[part] += 1
            if part not in self._failing:
                self._failing.add(part)
                # One of ours says all in its text; anything else is a fault of this program.
                unexpected = None if isinstance(error, EpochalError) else error
                _logger.warning("the reconciler's %s failed, and goes on: %s", part, said(error), exc_info=unexpected)
        else:
            self.counts.succeeded[part] = time.monotonic()
            if part in self._failing:
                self._failing.discard(part)
                _logger.warning("the reconciler's %s work again", part)


def _repeat(part: Callable[[], None], seconds: float, stop: threading.Event) -> None:
    while not stop.wait(seconds):
        part()
