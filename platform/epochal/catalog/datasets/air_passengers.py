"""Airline passengers of each month from 1949 to 1960, in thousands: years to predict the next months from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field as Bounds

from epochal.catalog.data import LoadedData
from epochal.catalog.datasets.in_memory import digest_of, loaded
from epochal.catalog.datasets.windows import WindowParams, windows
from epochal.catalog.entry import Dataset

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


class AirPassengersParams(WindowParams):
    window: Annotated[int, Bounds(ge=1, le=120)] = 24
    """Months that a prediction starts from."""
    horizon: Annotated[int, Bounds(ge=1, le=36)] = 6
    """Months that are predicted."""


def build(params: AirPassengersParams, folder: Path) -> LoadedData:
    """input: (window, 1) and target: (horizon,), logarithms of the numbers, shifted and scaled to mean 0 and deviation
    1 of the months before validation begins."""
    series = torch.tensor(PASSENGERS, dtype=torch.float64).log()
    digest = digest_of({"series": series, "shape": torch.tensor([params.window, params.horizon])})
    parts = windows(series[:, None], params.window, params.horizon, params)
    return loaded(*parts, source="air passengers", digest=digest)


ENTRY = Dataset(
    summary="144 months of airline passengers: the months to come from those before",
    source="Box, Jenkins and Reinsel 1976, Time series analysis, forecasting and control, series G",
    params=AirPassengersParams,
    build=build,
    task="regression",
)
