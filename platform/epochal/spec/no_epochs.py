"""Lengths that data without epochs has no meaning for."""

from __future__ import annotations

from collections.abc import Iterator

from epochal.errors import Problem
from epochal.units import Interval


def no_epochs(epochs: object, validate_every: Interval, checkpoint_every: Interval) -> Iterator[Problem]:
    """What is wrong with these of a training on a stream."""
    told = "the data is a stream, which has no epochs"
    if epochs is not None:
        yield Problem("train.epochs", told, value=epochs, hint="give train.steps in its place")
    for path, every in (("train.validate_every", validate_every), ("checkpoint.every", checkpoint_every)):
        if every.unit == "epochs":
            yield Problem(path, told, value=str(every), hint="give steps or a time: 500steps, 10m")
