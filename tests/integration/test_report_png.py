"""A sweep's report as a picture: matplotlib looks for fonts with a process of its own."""

from __future__ import annotations

import pytest

from epochal.sweeps.finding import Finding
from epochal.sweeps.report_png import png
from epochal.sweeps.trials import Measured, Trial, TrialState


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 40])
def test_a_report_is_a_picture_too(count: int) -> None:
    values = [(Measured(1.0, 0.5), Measured(2.0, number / 50)) for number in range(count)]
    trials = tuple(Trial(n, {"lr": 0.01 * n}, TrialState.COMPLETED, 2.0, curve) for n, curve in enumerate(values))
    found = Finding("digits", "val/accuracy", "max", 2.0, "epochs", "random search, trial scheduler none", trials)
    assert png(found).startswith(b"\x89PNG")
