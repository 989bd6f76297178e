"""When something is due: after so many steps, epochs or seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from time import monotonic

from epochal.units import Interval


def next_due(every: Interval, steps_per_epoch: int, step: int) -> float:
    """The first step after ``step`` at which something is due; infinity where that depends on time.

    Fractions of an epoch fall on the step at which they are complete, so that they never drift from whole epochs.

    >>> [next_due(Interval(0.5, "epochs"), 5, step) for step in (0, 3, 5)]
    [3, 5, 8]
    """
    if every.unit == "seconds":
        return math.inf
    length = Fraction(str(every.value)) * (steps_per_epoch if every.unit == "epochs" else 1)
    length = max(length, Fraction(1))
    return math.ceil(length * (math.floor(step / length) + 1))


@dataclass
class Timer:
    """Watches an interval of time; never due for other intervals."""

    every: Interval
    _since: float = field(default_factory=monotonic)

    @property
    def due(self) -> bool:
        return self.every.unit == "seconds" and monotonic() - self._since >= self.every.value

    def restart(self) -> None:
        self._since = monotonic()
