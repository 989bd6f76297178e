"""`epochal run`: one job in this process, with a ledger, an agent and a Ray of its own.

Ray comes first: while its processes start, which this one only waits for, a thread imports the rest and opens the
ledger. So nothing that takes long to import is named at the top of this file.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from epochal.engine.connection import Connection, connect
from epochal.files import require_writable
from epochal.settings import DEFAULT_RETENTION, Home, Retention

if TYPE_CHECKING:
    from epochal.agent.foreground_job import ForegroundJob
    from epochal.agent.observer import Observer
    from epochal.agent.summary import Summary
    from epochal.spec.load import LoadedSpec


@dataclass(frozen=True)
class Place:
    """Where to run: the home, where runs are recorded, and a Ray cluster's address (None: a private one).

    ``retention``: how long what earlier jobs have left in the home is kept.
    """

    home: Home
    tracking_uri: str
    address: str | None = None
    retention: Retention = DEFAULT_RETENTION


class Foreground:
    """Runs one job to its end. ``interrupt`` and ``kill`` may be called from a signal handler."""

    def __init__(self, place: Place, observer: Observer) -> None:
        self._place = place
        self._observer = observer
        self._job: ForegroundJob | None = None
        self._grace: float | None = None
        self._killing = False

    def run(self, loaded: LoadedSpec, command: tuple[str, ...] = ()) -> Summary:
        """Submit the job and run it.

        Raises:
            SpecError, CodeError, NotFoundError: it cannot be submitted.
            UnreachableError: Ray does not start, or the cluster does not answer.
        """
        return self._carry(lambda job: job.submit(loaded, command), loaded.spec.most_workers)

    def resume(self, ref: str) -> Summary:
        """Go on with a job that was interrupted, from its newest checkpoint, in the same run.

        Raises:
            NotFoundError: no such job.
            ConflictError: it has ended for good, or runs elsewhere.
        """
        return self._carry(lambda job: job.queue_again(ref), workers=0)

    def interrupt(self, grace: float) -> None:
        """Have the job save its state and end; its workers are killed where they do not within ``grace`` seconds. What
        takes time is done in a thread."""
        self._grace = grace
        if self._job is not None:
            threading.Thread(target=self._job.interrupt, args=(grace,), daemon=True).start()

    def kill(self) -> bool:
        """Have its workers killed; False where there are none, or that was asked for before."""
        if self._killing or self._job is None or not self._job.has_workers:
            return False
        self._killing = True
        self.interrupt(0.0)
        return True

    def _carry(self, queue: Callable[[ForegroundJob], None], workers: int) -> Summary:
        """``workers``: how many processes will be wanted, 0 where only the ledger knows.

        The job is queued only once there is a cluster: one that nobody takes would wait in the ledger for ever.
        """
        began = time.monotonic()
        require_writable(self._place.home.root)
        with ThreadPoolExecutor(1) as beside:
            opening = beside.submit(self._open)
            try:
                # In this thread: Ray's processes end with the one that started them.
                with connect(self._place.address, token_path=self._place.home.ray_token) as cluster:
                    _keep_warm(cluster, workers)
                    self._job = job = opening.result()
                    queue(job)
                    _keep_warm(cluster, job.workers)
                    job.run(cluster, lambda: self._grace)
                return job.summary(began)
            finally:
                if opening.exception() is None:
                    opening.result().close()

    def _open(self) -> ForegroundJob:
        from epochal.agent.foreground_job import ForegroundJob

        place = self._place
        return ForegroundJob(place.home, place.tracking_uri, place.retention, self._observer)


def _keep_warm(cluster: Connection, workers: int) -> None:
    """Have that many processes ready, but on each node no more than the biggest has CPUs."""
    most = max(1, int(max((node.total.get("CPU", 1.0) for node in cluster.nodes()), default=1.0)))
    cluster.keep_warm(min(workers, most))
