"""Whether Ray is lost: a decision over probes; the caller brings the clock."""

from __future__ import annotations

from collections.abc import Callable

PROBE_SECONDS = 0.5
PATIENCE_SECONDS = 2.0
"""For so long a part of Ray may leave probes unanswered."""


class RayWatch:
    """Asks ``lost`` (what does not answer; empty while all does) twice a second.

    >>> answers, now = iter(["", "the raylet", "the raylet"]), iter([0.0, 1.0, 4.0])
    >>> watch = RayWatch(lambda: next(answers), lambda: next(now))
    >>> [watch.verdict() for _ in range(3)]
    ['', '', 'the raylet']
    """

    def __init__(self, lost: Callable[[], str], clock: Callable[[], float]) -> None:
        self._lost = lost
        self._clock = clock
        self._looked = float("-inf")
        self._missing_since: float | None = None

    def verdict(self) -> str:
        """What is lost for good; empty while nothing is, or may yet be back."""
        now = self._clock()
        if now - self._looked < PROBE_SECONDS:
            return ""
        self._looked = now
        lost = self._lost()
        if not lost:
            self._missing_since = None
        elif self._missing_since is None:
            self._missing_since = now
        return lost if self._missing_since is not None and now - self._missing_since >= PATIENCE_SECONDS else ""
