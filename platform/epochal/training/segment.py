"""Which part of a training is to be done now."""

from __future__ import annotations

from dataclasses import dataclass

from epochal.units import Interval


@dataclass(frozen=True)
class Segment:
    """To ``resume`` is to go on from the newest sound checkpoint; from the start where there is none.

    ``until`` is counted from the beginning of the training, not from where it goes on; None for all of it. What the
    learning rate is at a step does not depend on it. ``saved``: whether the state at the end is saved, for whoever goes
    on from there; a segment that was stopped before always saves. ``beats``: the final weights are written only where
    the objective is better than this. ``trial``: it is one of a sweep, which chooses by what it validates: its test
    samples are left alone, and of its weights only the last are kept.
    """

    resume: bool = False
    until: Interval | None = None
    saved: bool = True
    beats: float | None = None
    trial: bool = False

    def last_step(self, total_steps: int, steps_per_epoch: int) -> int:
        """
        >>> Segment(until=Interval(2, "epochs")).last_step(total_steps=50, steps_per_epoch=5)
        10
        """
        until = self.until.steps(steps_per_epoch) if self.until is not None else None
        return total_steps if until is None else min(until, total_steps)


WHOLE = Segment()
RESUMED = Segment(resume=True)
