"""Since when agents have been able to renew their leases: one that ran out in that time is its agent's fault."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from epochal.errors import UnreachableError


class Renewals:
    """Watches the clock by which leases run out, the event loop, and the renewals themselves.

    A tick that is late says that something was away: this process (stopped, or the machine asleep), the database, or
    the clock itself (set forward). A renewal that came and was not answered in time says that this server was busy.

    Args:
        lease: seconds that agents get to renew after a time in which they could not.
        late: seconds after which a tick, a turn of the event loop or an answer to a renewal is late.
    """

    def __init__(self, lease: float, late: float) -> None:
        self._lease = lease
        self._late = late
        self._seen = math.nan
        self._since = math.nan
        self._turned = math.inf
        self._asked: dict[object, float] = {}
        self._is_interrupted = False

    def were_possible(self, now: float) -> bool:
        """Whether they were for a whole lease's time, ``now`` being the time by the leases' clock."""
        waiting = min([self._turned, *self._asked.copy().values()])
        interrupted, self._is_interrupted = self._is_interrupted, False
        if interrupted or time.monotonic() - waiting > self._late or not 0 <= now - self._seen <= self._late:
            self._since = now
        self._seen = now
        return now - self._since >= self._lease

    def interrupted(self) -> None:
        self._is_interrupted = True

    def turned(self) -> None:
        """The event loop has come round: requests are read."""
        if time.monotonic() - self._turned > self._late:
            self.interrupted()
        self._turned = time.monotonic()

    @contextmanager
    def serving(self) -> Iterator[None]:
        """A renewal is being answered within the ``with`` block."""
        asked = object()
        self._asked[asked] = time.monotonic()
        try:
            yield
        except UnreachableError:
            self.interrupted()
            raise
        finally:
            if time.monotonic() - self._asked.pop(asked) > self._late:
                self.interrupted()
