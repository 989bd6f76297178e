"""Keeps a lease alive from a thread, and notices when the job should stop or was taken away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from epochal.errors import ConflictError, EpochalError
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import JobState
from epochal.ledger.values import Lease

LEASE_SECONDS = 30.0
"""How long a lease lasts without a renewal. It is renewed six times as often."""


class LeaseKeeper:
    """Renews ``lease`` until left. ``on_stop`` is called once when the ledger asks for the job's end, ``on_lost`` once
    when the lease is no longer ours: another attempt may be live, so everything of this one must end."""

    def __init__(self, ledger: Ledger, lease: Lease, on_stop: Callable[[], None], on_lost: Callable[[], None]) -> None:
        self._ledger = ledger
        self._lease = lease
        self._on_stop = on_stop
        self._on_lost = on_lost
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease-{lease.job_id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        self._thread.join()

    def _renew(self) -> None:
        told = False
        while not self._left.wait(LEASE_SECONDS / 6):
            try:
                state = self._ledger.renew(self._lease, LEASE_SECONDS)
            except ConflictError:
                self._on_lost()
                return
            except EpochalError:
                continue  # the ledger does not answer just now; the lease outlasts several renewals
            if state is JobState.STOPPING and not told:
                told = True
                self._on_stop()
