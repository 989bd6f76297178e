"""A table from a CSV or Parquet file: one column is the target, the others are features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field as Bounds
from torch import Tensor

from epochal.catalog.data import LoadedData
from epochal.catalog.datasets.files import existing
from epochal.catalog.datasets.in_memory import Arrays, PartitionParams, digest_of, held_out, loaded, standardized
from epochal.catalog.entry import Dataset
from epochal.errors import EpochalError, did_you_mean

MAX_CATEGORIES = 100
"""A text column with more values than this is rather a name or free text than a category."""


class TableParams(PartitionParams):
    path: Annotated[str, Bounds(min_length=1)]
    """The file, .csv, .tsv or .parquet; relative to the spec's folder."""
    target: Annotated[str, Bounds(min_length=1)]
    """The column to predict."""
    target_kind: Literal["class", "real"] | None = None
    """null: class for text, booleans and whole numbers, real for others."""
    features: Annotated[list[str], Bounds(min_length=1)] | None = None
    """The columns to predict from; null is all but the target."""
    exclude: list[str] = []
    """Columns to leave out, such as an id."""
    validation_path: Annotated[str, Bounds(min_length=1)] | None = None
    """A file for validation with the same columns; null holds out a share of `path` instead."""
    standardize: bool = True
    """Shift and scale numbers to mean 0 and standard deviation 1 of the training part."""
    standardize_target: bool = True
    """The same for a real target; mae and rmse are then in standard deviations."""


@dataclass(frozen=True)
class Table:
    """Columns by name, all of one length, without missing values."""

    path: Path
    columns: dict[str, NDArray[Any]]

    def column(self, name: str) -> NDArray[Any]:
        if name not in self.columns:
            raise EpochalError(f"{self.path} has no column {name!r}", did_you_mean(name, tuple(self.columns)))
        return self.columns[name]


def build(params: TableParams, folder: Path) -> LoadedData:
    """input: (features,), text columns as one value a category; target: a class or one value."""
    train = read_table(existing(params.path, folder))
    other = read_table(existing(params.validation_path, folder)) if params.validation_path else None
    names = _feature_names(params, train)
    tables = [train] if other is None else [train, other]
    for table in tables:
        _refuse_missing(table, [*names, params.target])
    parts = [
        Arrays(inputs, *target) for inputs, target in zip(_inputs(tables, names), _targets(tables, params), strict=True)
    ]
    digest = digest_of(
        {f"{key}{index}": tensor for index, part in enumerate(parts) for key, tensor in part.batch().items()}
    )
    first, second = (parts[0], parts[1]) if other is not None else held_out(parts[0], params)
    real = parts[0].classes is None
    first, second = standardized(first, second, params.standardize, params.standardize_target and real)
    return loaded(first, second, source=str(train.path), digest=digest)


def read_table(path: Path) -> Table:
    """Read a file with types as pyarrow infers them.

    Raises:
        EpochalError: it is not a table, or is empty.
    """
    import pyarrow as pa
    from pyarrow import csv, parquet

    try:
        if path.suffix in {".parquet", ".pq"}:
            table = parquet.read_table(path)
        else:
            delimiter = "\t" if path.suffix == ".tsv" else ","
            table = csv.read_csv(path, parse_options=csv.ParseOptions(delimiter=delimiter))
    except (pa.ArrowException, OSError) as error:
        raise EpochalError(f"{path} cannot be read as a table: {error}") from error
    if not table.num_rows:
        raise EpochalError(f"{path} has no rows")
    return Table(path, {name: _values(table.column(name)) for name in table.column_names})


def _values(column: Any) -> NDArray[Any]:
    """Numbers as float64 or int64, anything else as text; missing values as NaN or None."""
    import pyarrow.types as kinds

    kind = column.type
    if kinds.is_boolean(kind) and not column.null_count:
        return np.asarray(column.to_numpy(), dtype=bool)
    if kinds.is_integer(kind) and not column.null_count:
        return np.asarray(column.to_numpy(), dtype=np.int64)
    if kinds.is_floating(kind) or kinds.is_integer(kind) or kinds.is_decimal(kind):
        return np.asarray(column.cast("float64").to_numpy(), dtype=np.float64)
    return np.asarray([None if value in (None, "") else str(value) for value in column.to_pylist()], dtype=object)


def _feature_names(params: TableParams, table: Table) -> list[str]:
    table.column(params.target)
    for name in [*(params.features or ()), *params.exclude]:
        table.column(name)
    left_out = {params.target, *params.exclude}
    names = [name for name in params.features or table.columns if name not in left_out]
    if not names:
        raise EpochalError(f"{table.path}: no column is left to predict {params.target!r} from")
    return names


def _refuse_missing(table: Table, names: list[str]) -> None:
    missing = {name: _missing(table.column(name)) for name in names}
    described = [f"{name!r} in {count} of {len(table.columns[name])} rows" for name, count in missing.items() if count]
    if described:
        raise EpochalError(
            f"{table.path} misses values of {', '.join(described)}",
            "fill them in, drop the rows, or exclude the column",
        )


def _missing(values: NDArray[Any]) -> int:
    if values.dtype == object:
        return sum(value is None for value in values)
    return int((~np.isfinite(values)).sum()) if values.dtype.kind == "f" else 0


def _inputs(tables: list[Table], names: list[str]) -> list[Tensor]:
    """(rows, features) of each table; categories are those of all tables together."""
    encoded: list[list[NDArray[Any]]] = [[] for _ in tables]
    for name in names:
        columns = [table.column(name) for table in tables]
        for parts, values in zip(encoded, _encoded(tables[0].path, name, columns), strict=True):
            parts.append(values)
    return [torch.from_numpy(np.concatenate(parts, axis=1, dtype=np.float64)) for parts in encoded]


def _encoded(path: Path, name: str, columns: list[NDArray[Any]]) -> list[NDArray[Any]]:
    if all(column.dtype != object for column in columns):
        return [column[:, None] for column in columns]
    texts = [column.astype(str) for column in columns]
    categories = np.unique(np.concatenate(texts))
    if len(categories) > MAX_CATEGORIES:
        raise EpochalError(
            f"{path}: the text column {name!r} has {len(categories)} different values, more than {MAX_CATEGORIES}",
            f"leave it out: data.params.exclude: [{name}]",
        )
    return [text[:, None] == categories[None, :] for text in texts]


def _targets(tables: list[Table], params: TableParams) -> list[tuple[Tensor, int | None]]:
    columns = [table.column(params.target) for table in tables]
    kind = params.target_kind or ("real" if any(column.dtype.kind == "f" for column in columns) else "class")
    if kind == "class":
        return _class_numbers(columns)
    if any(column.dtype == object for column in columns):
        raise EpochalError(f"{tables[0].path}: the target {params.target!r} is text, not a real value")
    return [(torch.from_numpy(column.astype(np.float64)), None) for column in columns]


def _class_numbers(columns: list[NDArray[Any]]) -> list[tuple[Tensor, int | None]]:
    """Classes are numbered in the order of their values."""
    if any(column.dtype == object for column in columns):
        columns = [column.astype(str) for column in columns]
    classes = np.unique(np.concatenate(columns))
    return [(torch.from_numpy(np.searchsorted(classes, column)), len(classes)) for column in columns]


ENTRY = Dataset(
    summary="Your own table, CSV or Parquet: one column is the target, the others are features",
    source="https://arrow.apache.org/docs/python/csv.html",
    params=TableParams,
    build=build,
    task=None,
)
