"""How far this machine's clock is from another's, which has answered a question."""

from __future__ import annotations

MOST_SECONDS = 5.0
"""What a whole second in an answer, and a clock that is being set, may come to."""

ADVICE = "set both by a time server (`timedatectl set-ntp true`): runs, metrics and logs bear the wrong time until then"


def ahead(told: float, asked: float, answered: float) -> float:
    """Seconds by which a clock that showed ``asked`` before and ``answered`` after is ahead of the one that showed
    ``told`` in between; less than nothing where it is behind. An answer that took long cannot make it more.

    >>> ahead(100.0, 99.0, 103.0), ahead(100.0, 400.0, 401.0), ahead(100.0, 40.0, 41.0)
    (0.0, 300.0, -59.0)
    """
    return max(asked - told, 0.0) + min(answered - told, 0.0)


def beside(seconds: float, other: str) -> str:
    """
    >>> beside(300.2, "the server")
    "300 s ahead of the server's"
    """
    return f"{abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} {other}'s"


def is_off(seconds: float) -> bool:
    return abs(seconds) > MOST_SECONDS
