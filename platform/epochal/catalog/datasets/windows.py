"""Windows of a series: what was, and what comes after it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field as Bounds
from torch import Tensor

from epochal.catalog.datasets.in_memory import Arrays, Parts, scaling
from epochal.catalog.entry import Params
from epochal.errors import EpochalError

WindowShare = Annotated[float, Bounds(ge=0, lt=1)]


class WindowParams(Params):
    validation: WindowShare = 0.2
    """Share of the windows held out for validation: the last ones, of which no training window predicts a step."""
    test: WindowShare = 0.0
    """Share of the windows that are measured once, after the training: the last ones, after those for validation. No
    other window predicts their steps."""


def windows(series: Tensor, window: int, horizon: int, params: WindowParams) -> Parts:
    """Every window of a ``series`` (time, features) in float64, and ``horizon`` steps of its first feature after it.

    input: (window, features); target: (horizon,). Shifted and scaled, each feature by itself, to mean 0 and deviation 1
    of the steps before validation begins; the last windows are for validation and test.

    Raises:
        EpochalError: none is left to train on.
    """
    steps = window + horizon
    # Features after time, as the windows of unfold have it: (windows, features, steps).
    cut = series.unfold(0, steps, 1) if len(series) >= steps else series.new_empty(0, series.shape[1], steps)
    held_out, trained = list[tuple[int, int]](), len(cut)
    for count in (round(len(cut) * share) for share in (params.test, params.validation)):
        held_out.insert(0, (trained - count, trained))
        # A window ends before the first step that one of the next part predicts.
        trained -= count + (horizon - 1 if count else 0)
    if trained < 1:
        told = f"{len(cut)} windows of {window} + {horizon} steps leave none to train on"
        raise EpochalError(told, "take a shorter window or horizon, or hold out less")
    mean, deviation = (one[:, None] for one in scaling(series[: trained + steps - 1]))
    scaled = ((cut - mean) / deviation).float()
    inputs, targets = scaled[:, :, :window].transpose(1, 2).contiguous(), scaled[:, 0, window:].contiguous()
    parts = [Arrays(inputs[low:high], targets[low:high], None) if low < high else None for low, high in held_out]
    return Parts(Arrays(inputs[:trained], targets[:trained], None), *parts)
