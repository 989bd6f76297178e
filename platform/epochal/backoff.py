"""How long to wait before what failed is tried again: one policy, wherever something is tried again.

A function of a count and not a library's decorator: who waits here also renews leases, listens for signals and for a
stop, or is a loop that must not sleep at all.
"""

from __future__ import annotations

FIRST_SECONDS = 0.1
LONGEST_SECONDS = 2.0
_MOST_DOUBLINGS = 30  # beyond them a float would overflow one day


def pause_after(failures: int, first: float = FIRST_SECONDS, longest: float = LONGEST_SECONDS) -> float:
    """Seconds to wait after so many failures in a row (at least one): each wait is twice the one before.

    Without chance in it: callers begin at moments of their own and stay apart by them once the waits are the longest.

    >>> [pause_after(failures) for failures in range(1, 7)]
    [0.1, 0.2, 0.4, 0.8, 1.6, 2.0]
    """
    return min(longest, first * 2.0 ** min(failures - 1, _MOST_DOUBLINGS))
