"""The report as a picture: matplotlib looks for fonts with programs of the system."""

from __future__ import annotations

import math

import pytest

from epochal.sweeps.finding import Finding
from epochal.sweeps.report_png import png
from epochal.sweeps.trials import Measured, Trial, TrialState


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_the_pictures_are_a_png(count: int) -> None:
    trials = [
        Trial(
            number,
            {
                "lr": 10.0 ** -(number % 5),
                "width": [number % 3],
                "$a$": f"$\\q_ {number}$",
                **({"momentum": 0.9} if number % 2 else {}),
            },
            TrialState.COMPLETED,
            curve=(Measured(1.0, 0.5), Measured(2.0, math.inf if number == 7 else number / 40)),
        )
        for number in range(count)
    ]
    made = png(Finding("digits", "val/loss", "min", 2.0, "epochs", "random search", tuple(trials)))
    assert made.startswith(b"\x89PNG")
    assert len(made) > 10_000
