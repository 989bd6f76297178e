"""How long to wait before a service that ended by itself is started again."""

from __future__ import annotations

FIRST_SECONDS = 0.2
LONGEST_SECONDS = 30.0
STABLE_SECONDS = 60.0


class Backoff:
    """Each wait is twice the one before, up to half a minute; after a stable minute it begins anew.

    >>> backoff = Backoff()
    >>> [backoff.wait(ran_seconds=1) for _ in range(4)], backoff.wait(ran_seconds=61)
    ([0.2, 0.4, 0.8, 1.6], 0.2)
    """

    def __init__(self) -> None:
        self._next = FIRST_SECONDS

    def wait(self, ran_seconds: float) -> float:
        """Seconds to wait, after a service has run for ``ran_seconds``."""
        seconds = FIRST_SECONDS if ran_seconds >= STABLE_SECONDS else self._next
        self._next = min(2 * seconds, LONGEST_SECONDS)
        return seconds
