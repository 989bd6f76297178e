"""Series of numbers from a table of yours, one step a row: windows, and the steps that come after them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field as Bounds
from torch import Tensor

from epochal.catalog.data import LoadedData
from epochal.catalog.datasets.files import existing
from epochal.catalog.datasets.in_memory import Arrays, digest_of, loaded
from epochal.catalog.datasets.table_file import Table, TableFormat, read_table
from epochal.catalog.datasets.windows import WindowParams, windows
from epochal.catalog.entry import Dataset
from epochal.catalog.understood import Understood
from epochal.errors import EpochalError


class SeriesParams(WindowParams):
    path: Annotated[str, Bounds(min_length=1)]
    """The table, .csv or .parquet, with a row for each step; relative to the spec's folder."""
    target: Annotated[str, Bounds(min_length=1)]
    """The column whose next values are predicted."""
    features: list[str] = []
    """Columns of numbers that are known up to the same step, beside the target."""
    time: str | None = None
    """The column that rows are put in order by: numbers, or text such as dates in ISO 8601; null: they are in order."""
    series: str | None = None
    """The column that says which series a row belongs to; null: there is one. Each is scaled and held out by itself."""
    window: Annotated[int, Bounds(ge=1)] = 24
    """Steps that a prediction starts from."""
    horizon: Annotated[int, Bounds(ge=1)] = 6
    """Steps that are predicted."""


def build(params: SeriesParams, folder: Path) -> LoadedData:
    """input: (window, 1 + features) and target: (horizon,), shifted and scaled to mean 0 and deviation 1 of the steps
    before validation begins."""
    columns = list(dict.fromkeys([params.target, *params.features]))
    keys = [name for name in (params.time, params.series) if name is not None]
    table = read_table(existing(params.path, folder), TableFormat(None, None, None, None), [*columns, *keys])
    values = torch.from_numpy(np.stack([_numbers(table, name) for name in columns], axis=1))
    parts = [
        (name, windows(values[rows], params.window, params.horizon, params))
        for name, rows in _series(table, params).items()
    ]
    source, count = str(table.path), len(values)
    told = tuple(
        Understood(name or table.path.name, "series", note=f"{len(train.input):,} windows to train on")
        for name, (train, *_) in parts
    )
    train, validation, test = (
        _joined([one for one in part if one]) for part in zip(*(each for _, each in parts), strict=True)
    )
    assert train is not None
    digest = digest_of({"values": values, "shape": torch.tensor([params.window, params.horizon, count])})
    return replace(loaded(train, validation, test, source=source, digest=digest), understood=told)


def _joined(parts: list[Arrays]) -> Arrays | None:
    if not parts:
        return None
    return Arrays(torch.cat([part.input for part in parts]), torch.cat([part.target for part in parts]), None)


def _series(table: Table, params: SeriesParams) -> dict[str, Tensor]:
    """The rows of each series, in the order of time, by name."""
    order = np.arange(len(table.cells))
    if params.time is not None:
        times = _whole(table, params.time)
        if times.dtype.kind == "U":
            _refuse_unordered(table, params.time, times)
        order = np.argsort(times, kind="stable")
    if params.series is None:
        return {"": torch.from_numpy(order)}
    names = _whole(table, params.series, text=True)[order]
    found, counts = np.unique(names, return_counts=True)
    # Sorted once, and stably: within a series by time. To look for each in all rows takes minutes of thousands.
    rows = np.split(order[np.argsort(names, kind="stable")], np.cumsum(counts)[:-1])
    return {str(name): torch.from_numpy(own) for name, own in zip(found, rows, strict=True)}


def _refuse_unordered(table: Table, name: str, times: NDArray[np.generic]) -> None:
    """Dates that begin with the day or the month, or have one digit where others have two, and numbers among text."""
    wrong = [row for row, time in enumerate(times.tolist()) if _UNORDERED.match(time)]
    if wrong:
        told = f"found {str(times[wrong[0]])!r}, which the order of letters does not put in the order of time"
        hint = "write dates as in ISO 8601, 2024-01-31, or numbers alone"
        raise EpochalError(f"{table.path} (column {name!r}, {table.rows(wrong)}): {told}", hint)


_UNORDERED = re.compile(
    r"""\d{1,2}[-/. ]\w+[-/. ]\d{2,4}\b | [A-Za-z]{3,9}\.?\ \d{1,2},?\ \d{4}\b  # the day or the month first
    | \d{4}[-/.]\d\b | \d{4}[-/.]\d\d[-/.]\d\b | \d:  # one digit
    | (?!\d{4}$)[+-]?\d+([.,]\d+)?$""",
    re.VERBOSE,
)


def _whole(table: Table, name: str, text: bool = False, mixed: bool = True) -> NDArray[np.generic]:
    """A column without gaps, as what can be put in order."""
    column = table.column(name, text=text, mixed=mixed)
    if len(column.missing):
        told = f"{table.path} (column {name!r}, {table.rows(column.missing)}): found nothing, expected a value"
        raise EpochalError(told, "fill it in, or drop the row")
    return column.values.astype(str) if column.is_text else column.values


def _numbers(table: Table, name: str) -> NDArray[np.float64]:
    values = _whole(table, name, mixed=False)
    if values.dtype.kind not in "iufb":
        raise EpochalError(f"{table.path} (column {name!r}): found text, expected numbers")
    numbers = values.astype(np.float64)
    if len(infinite := np.flatnonzero(np.isinf(numbers))):
        told = f"{table.path} (column {name!r}, {table.rows(infinite)}): found a number that is not finite"
        raise EpochalError(told, "mend it, or drop the row")
    return numbers


ENTRY = Dataset(
    summary="Your own series, CSV or Parquet: windows of them, and the steps to come",
    source="https://arrow.apache.org/docs/python/csv.html",
    params=SeriesParams,
    build=build,
    task="forecasting",
)
