"""What one attempt tells the ledger: in order, from a thread of its own, for as long as it takes.

Nothing that follows the workers ever waits for the ledger. While that is away calls gather here, and the lease's
renewal is tried again and again: one that ran out can be renewed as long as nobody has noticed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from epochal.agent.port import AWAY, JobSource
from epochal.backoff import pause_after
from epochal.errors import ConflictError, EpochalError, NotFoundError, UnreachableError
from epochal.ledger.states import JobState
from epochal.ledger.values import LEASE_SECONDS, Job, Lease, Renewed
from epochal.redaction import named

RENEW_SECONDS = 2.0
"""Between two renewals: as long as it takes until progress is seen, or a stop is noticed."""

_TRIES = 5
"""Of a call that is answered with an error which is not the ledger's being away."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listener:
    """Called from the outbox's thread: ``changed`` with the job as it is now, ``stop`` whenever it is heard that it was
    asked to end, with the grace that it has, ``lost`` when the lease is no longer ours: another attempt may be live, so
    everything of this one must end. ``renewed`` is told what each renewal says.
    """

    changed: Callable[[Job], None]
    stop: Callable[[float | None], None]
    lost: Callable[[EpochalError], None]
    renewed: Callable[[Renewed], None] = lambda renewed: None


class Outbox:
    """Carries what ``tell`` is given to the ledger, and keeps the lease, until ``end`` was carried out.

    ``patience``: for how many seconds a ledger that is away is asked once there is an end to tell; None: for ever.
    """

    def __init__(self, source: JobSource, lease: Lease, listener: Listener, patience: float | None = None) -> None:
        self._patience = patience
        self._source = source
        self._lease = lease
        self._listener = listener
        self._calls: deque[Callable[[], Job | None]] = deque()
        self._decide: Callable[[], Callable[[], Job | Lease]] | None = None
        self._progress: Mapping[str, Any] | None = None
        self._changed = threading.Condition()
        self._over = threading.Event()
        self._renewed = time.monotonic()
        self._job: Job | None = None
        self._next: Lease | None = None
        self._untold: UnreachableError | None = None
        self._thread = threading.Thread(target=self._run, name=f"outbox-{lease.job_id}", daemon=True)
        self._thread.start()

    def tell(self, call: Callable[[], Job | None]) -> None:
        """Have ``call`` made after all calls before it; it is repeated until it was answered."""
        with self._changed:
            self._calls.append(call)
            self._changed.notify_all()

    def progress(self, progress: Mapping[str, Any]) -> None:
        """Where the training is: sent with the next renewal, the newest only, and before the end."""
        with self._changed:
            self._progress = progress

    def end(self, decide: Callable[[], Callable[[], Job | Lease]]) -> None:
        """After all calls: ``decide`` gives the last; both are repeated until answered. The first ``end`` counts."""
        with self._changed:
            self._decide = self._decide or decide
            self._changed.notify_all()

    @property
    def is_over(self) -> bool:
        """Whether the end was told, or the lease is lost."""
        return self._over.is_set()

    def wait(self, seconds: float | None = None) -> Job | None:
        """The job as the end has left it; None where the lease was lost, or the time is up.

        Raises:
            UnreachableError: ``patience`` is used up.
        """
        self._over.wait(seconds)
        if self._untold is not None:
            job = self._lease.job_id
            hint = f"make room on its disk, or start it; then `epochal run --resume {job}`"
            raise UnreachableError(f"how {job} ended cannot be written down: {self._untold}", hint)
        return self._job

    @property
    def next_lease(self) -> Lease | None:
        """That of the attempt which follows this one at once, where the end has brought it."""
        return self._next

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                self._renew_when_due()  # first: one that ran out is ours until somebody notices
                self._call_next()
                self._rest()
        except (ConflictError, NotFoundError) as error:
            self._over.set()
            self._listener.lost(error)
        except UnreachableError as error:
            self._untold = error
            self._over.set()
        except Exception as error:
            _logger.exception("%s cannot be told how its attempt goes", self._lease.job_id)
            self._over.set()
            what = named(error)
            self._listener.lost(EpochalError(f"the agent failed: {what}"))

    def _rest(self) -> None:
        """Until there is something to do."""
        with self._changed:
            while not self._over.is_set() and not self._calls and self._decide is None:
                wait = self._due() - time.monotonic()
                if wait <= 0:
                    return
                self._changed.wait(wait)

    def _due(self) -> float:
        """When those of all attempts are due that this process carries, so that they are sent together."""
        return (self._renewed // RENEW_SECONDS + 1) * RENEW_SECONDS

    def _renew_when_due(self) -> None:
        if time.monotonic() < self._due():
            return
        try:
            self._renew()
        except (ConflictError, NotFoundError):
            raise
        except EpochalError:
            return  # the lease outlasts many renewals; the next one is tried soon

    def _renew(self) -> None:
        with self._changed:
            progress = self._progress
        try:
            renewed = self._source.renew(self._lease, LEASE_SECONDS, progress)
        finally:
            # After a failure too: the next try is due with the renewals of other attempts, not at once.
            self._renewed = time.monotonic()
        with self._changed:
            if self._progress is progress:
                self._progress = None
        self._listener.renewed(renewed)
        if renewed.state is JobState.STOPPING:
            self._listener.stop(renewed.grace)

    def _call_next(self) -> None:
        with self._changed:
            call, decide = (self._calls[0] if self._calls else None), self._decide
        if call is not None:
            self._heed(self._answer(call))
            with self._changed:
                self._calls.popleft()
        elif decide is not None:
            if self._progress is not None:
                self._answer(self._renew)
            carry_out = self._answer(decide)
            answer = self._answer(carry_out, renews=False) if carry_out is not None else None
            self._next = answer if isinstance(answer, Lease) else None
            self._job = answer.job if isinstance(answer, Lease) else answer
            self._heed(self._job)
            self._over.set()

    def _answer(self, call: Callable[[], Any], renews: bool = True) -> Any:
        """What ``call`` gives, made again until it is answered; None where it is refused.

        The lease is renewed in between, but not once its end may have been heard, and only its answer got lost.
        """
        refused = failures = 0
        began = time.monotonic()
        while True:
            try:
                return call()
            except (ConflictError, NotFoundError):
                raise
            except EpochalError as error:
                refused += not isinstance(error, AWAY)
                if isinstance(error, UnreachableError) and self._gives_up(began):
                    raise
                if refused >= _TRIES:
                    _logger.warning("%s: the ledger refuses what it is told: %s", self._lease.job_id, error)
                    return None
            failures += 1
            time.sleep(pause_after(failures))
            if renews:
                self._renew_when_due()

    def _gives_up(self, began: float) -> bool:
        ending = self._decide is not None and self._patience is not None
        return ending and time.monotonic() - began >= (self._patience or 0.0)

    def _heed(self, job: Job | None) -> None:
        if job is None:
            return
        self._listener.changed(job)
        if job.state is JobState.STOPPING:
            self._listener.stop(job.grace)
