"""When something is due: after so many steps, epochs or seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from time import monotonic

from epochal.units import Interval


@dataclass(frozen=True)
class Schedule:
    """Steps at which something is due: every ``numerator / denominator`` steps, never where that is 0 / 1.

    Fractions of an epoch fall on the step at which they are complete, so that they never drift from whole epochs.

    >>> half = Schedule.of(Interval(0.5, "epochs"), steps_per_epoch=5)
    >>> [half.after(step) for step in (0, 3, 5)]
    [3, 5, 8]
    """

    numerator: int
    denominator: int

    @classmethod
    def of(cls, every: Interval, steps_per_epoch: int) -> Schedule:
        """That of an interval; one of time depends on no step."""
        if every.unit == "seconds":
            return cls(0, 1)
        length = Fraction(str(every.value)) * (steps_per_epoch if every.unit == "epochs" else 1)
        return cls(*max(length, Fraction(1)).as_integer_ratio())  # more often than every step is every step

    def after(self, step: int) -> float:
        """The first step after ``step`` at which it is due, infinity if never."""
        if self.numerator == 0:
            return math.inf
        passed = step * self.denominator // self.numerator
        return -(-(passed + 1) * self.numerator // self.denominator)

    def due(self, step: int) -> bool:
        return self.after(step - 1) == step


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
