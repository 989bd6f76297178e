"""Airline passengers of each month from 1949 to 1960, in thousands: years to predict the next months from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field as Bounds

from epochal.catalog.data import LoadedData
from epochal.catalog.datasets.in_memory import Arrays, digest_of, loaded
from epochal.catalog.entry import Dataset, Params
from epochal.errors import EpochalError

PASSENGERS = (
    112, 118, 132, 129, 121, 135, 148, 148, 136, 119, 104, 118,
    115, 126, 141, 135, 125, 149, 170, 170, 158, 133, 114, 140,
    145, 150, 178, 163, 172, 178, 199, 199, 184, 162, 146, 166,
    171, 180, 193, 181, 183, 218, 230, 242, 209, 191, 172, 194,
    196, 196, 236, 235, 229, 243, 264, 272, 237, 211, 180, 201,
    204, 188, 235, 227, 234, 264, 302, 293, 259, 229, 203, 229,
    242, 233, 267, 269, 270, 315, 364, 347, 312, 274, 237, 278,
    284, 277, 317, 313, 318, 374, 413, 405, 355, 306, 271, 306,
    315, 301, 356, 348, 355, 422, 465, 467, 404, 347, 305, 336,
    340, 318, 362, 348, 363, 435, 491, 505, 404, 359, 310, 337,
    360, 342, 406, 396, 420, 472, 548, 559, 463, 407, 362, 405,
    417, 391, 419, 461, 472, 535, 622, 606, 508, 461, 390, 432,
)  # fmt: skip


class AirPassengersParams(Params):
    window: Annotated[int, Bounds(ge=1, le=120)] = 24
    """Months that a prediction starts from."""
    horizon: Annotated[int, Bounds(ge=1, le=36)] = 6
    """Months that are predicted."""
    validation: Annotated[float, Bounds(ge=0, lt=1)] = 0.2
    """Share of the windows held out for validation: the last ones, whose months no training window predicts."""
    test: Annotated[float, Bounds(ge=0, lt=1)] = 0.0
    """Share of the windows that are measured once, after the training: the last ones, after those for validation. No
    other window predicts their months."""


def build(params: AirPassengersParams, folder: Path) -> LoadedData:
    """input: (window, 1) and target: (horizon,), logarithms of the numbers, shifted and scaled to mean 0 and deviation
    1 of the months before validation begins."""
    series = torch.tensor(PASSENGERS, dtype=torch.float64).log()
    windows = series.unfold(0, params.window + params.horizon, 1)
    shares = [round(len(windows) * share) for share in (params.validation, params.test)]
    # A window ends before the first month that one of the next part predicts.
    firsts, end = [], len(windows)
    for count in reversed(shares):
        firsts.append(end - count)
        end -= count + (params.horizon - 1 if count else 0)
    trained = end
    if trained < 1:
        told = f"{len(windows)} windows of {params.window} + {params.horizon} months leave none to train on"
        raise EpochalError(told, "take a shorter window or horizon, or hold out less")
    known = series[: trained + params.window + params.horizon - 1]
    scaled = ((windows - known.mean()) / known.std(correction=0)).float()
    inputs, targets = scaled[:, : params.window, None].contiguous(), scaled[:, params.window :].contiguous()
    held_out = [
        Arrays(inputs[first : first + count], targets[first : first + count], None) if count else None
        for first, count in zip(reversed(firsts), shares, strict=True)
    ]
    digest = digest_of({"series": series, "shape": torch.tensor([params.window, params.horizon])})
    train = Arrays(inputs[:trained], targets[:trained], None)
    return loaded(train, *held_out, source="air passengers", digest=digest)


ENTRY = Dataset(
    summary="144 months of airline passengers: the months to come from those before",
    source="Box, Jenkins and Reinsel 1976, Time series analysis, forecasting and control, series G",
    params=AirPassengersParams,
    build=build,
    task="regression",
)
