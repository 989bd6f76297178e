"""Windows of a series: what was, and what comes after it."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field as Bounds
from torch import Tensor

from epochal.catalog.datasets.in_memory import Arrays
from epochal.catalog.entry import Params
from epochal.errors import EpochalError

WindowShare = Annotated[float, Bounds(ge=0, lt=1)]


class WindowParams(Params):
    validation: WindowShare = 0.2
    """Share of the windows held out for validation: the last ones, of which no training window predicts a step."""


def windows(series: Tensor, window: int, horizon: int, validation: float) -> tuple[Arrays, Arrays | None]:
    """Every window of a ``series`` (time, features) in float64, and ``horizon`` steps of its first feature after it.

    input: (window, features); target: (horizon,). Shifted and scaled, each feature by itself, to mean 0 and deviation 1
    of the steps before validation begins; the last windows are for validation.

    Raises:
        EpochalError: none is left to train on.
    """
    steps = window + horizon
    # Features after time, as the windows of unfold have it: (windows, features, steps).
    cut = series.unfold(0, steps, 1) if len(series) >= steps else series.new_empty(0, series.shape[1], steps)
    held_out = round(len(cut) * validation)
    # A training window ends before the first step that a validation window predicts.
    trained = len(cut) - held_out - (horizon - 1 if held_out else 0)
    if trained < 1:
        told = f"{len(cut)} windows of {window} + {horizon} steps leave none to train on"
        raise EpochalError(told, "take a shorter window or horizon, or hold out less")
    known = [one.contiguous() for one in series[: trained + steps - 1].T]
    mean = torch.stack([one.mean() for one in known])[:, None]
    deviation = torch.stack([one.std(correction=0) for one in known])[:, None]
    scaled = ((cut - mean) / torch.where(deviation == 0, 1.0, deviation)).float()
    inputs, targets = scaled[:, :, :window].transpose(1, 2).contiguous(), scaled[:, 0, window:].contiguous()
    rest = Arrays(inputs[-held_out:], targets[-held_out:], None) if held_out else None
    return Arrays(inputs[:trained], targets[:trained], None), rest
