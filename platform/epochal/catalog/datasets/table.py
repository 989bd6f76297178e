"""A table from a CSV or Parquet file: one column is the target, the others are features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field as Bounds
from torch import Tensor

from epochal.catalog.data import Field, LoadedData
from epochal.catalog.datasets.files import existing
from epochal.catalog.datasets.in_memory import (
    Arrays,
    PartitionParams,
    Parts,
    classes_shown,
    digest_of,
    loaded,
    shared_out,
    standardized,
    unheld,
    unsure,
)
from epochal.catalog.datasets.table_file import DATES, Column, Table, TableFormat, read_table
from epochal.catalog.entry import Dataset
from epochal.catalog.understood import Understood
from epochal.errors import EpochalError, some

MAX_CATEGORIES = {"columns": 100, "numbers": 100_000}
"""A text column with more values than this is rather a name or free text than a category."""
_NUMBERS = {"train": 0, "validation": 1, "test": 2}
"""Of the files, in their digest."""
EXACT = 2.0**53
"""Whole numbers below it are all different in float64."""


class TableParams(PartitionParams):
    path: Annotated[str, Bounds(min_length=1)]
    """The file, .csv, .tsv or .parquet, text perhaps packed as .gz, .bz2 or .zst; relative to the spec's folder."""
    target: Annotated[str, Bounds(min_length=1)]
    """The column to predict."""
    target_kind: Literal["class", "real"] | None = None
    """null: class for text, booleans and whole numbers, real for others."""
    features: Annotated[list[str], Bounds(min_length=1)] | None = None
    """The columns to predict from; null is all but the target."""
    exclude: list[str] = []
    """Columns to leave out, such as an id."""
    categories: list[str] = []
    """Columns to take as categories although they hold numbers, such as a postal code."""
    categories_as: Literal["columns", "numbers"] = "columns"
    """A value for each category beside the numbers, or a field of their own, `categories`, a number for each column:
    for models that embed them, such as `tabular`."""
    validation_path: Annotated[str, Bounds(min_length=1)] | None = None
    """A file for validation with the same columns; null holds out a share of `path` instead."""
    test_path: Annotated[str, Bounds(min_length=1)] | None = None
    """A file with the same columns that is measured once, after the training; null: see `test`."""
    standardize: bool = True
    """Shift and scale numbers to mean 0 and standard deviation 1 of the training part."""
    standardize_target: bool = True
    """The same for a real target; mae and rmse are then in standard deviations."""
    missing: list[str] | None = None
    """What stands for a missing value; null: what pandas takes for one (empty, NA, n/a, null, NaN, ...), and ?, -, --,
    ., .., which may be classes. A missing number becomes the mean of the training part, a missing
    text a category of its own."""
    delimiter: Annotated[str, Bounds(min_length=1, max_length=1)] | None = None
    """null: comma, semicolon, tab or bar, by which the first row has the columns that are named here."""
    encoding: Annotated[str, Bounds(min_length=1)] | None = None
    """null: UTF-8, or what a byte order mark says. Any that Python knows: cp1252, utf-16, shift_jis, ..."""
    decimal: Literal[".", ","] | None = None
    """null: as the numbers of the file show it. The other one may then group thousands."""


@dataclass(frozen=True)
class Feature:
    """A column of every table as numbers: ``parts`` are (rows, values) each, ``labels`` say what a value is.

    Of ``numbered`` ones there is one value, the number of its label.
    """

    labels: tuple[str, ...]
    parts: list[NDArray[Any]]
    understood: Understood
    numbered: bool = False


def build(params: TableParams, folder: Path) -> LoadedData:
    """input: (features,), text columns as one value a category; target: a class or one value.

    With ``categories_as: numbers`` those are apart, in categories: (columns,), numbered through over all columns.
    """
    missing = None if params.missing is None else tuple(params.missing)
    format = TableFormat(params.delimiter, params.encoding, params.decimal, missing)
    wanted = [params.target, *(params.features or ()), *params.exclude, *params.categories]
    paths = {"train": params.path, "validation": params.validation_path, "test": params.test_path}
    given = [name for name, path in paths.items() if path]
    tables = [read_table(existing(str(paths[name]), folder), format, wanted) for name in given]
    features = {name: _feature(tables, name, params) for name in _feature_names(params, tables[0])}
    targets, names, target = _targets(tables, params)
    classes = len(names) or None
    plain = [feature for feature in features.values() if not feature.numbered]
    numbered = [feature for feature in features.values() if feature.numbered]
    more = _numbered(numbered, len(tables))
    nothing = [np.empty((len(target), 0)) for target in targets]
    inputs = [
        torch.from_numpy(np.concatenate([nothing[index], *(one.parts[index] for one in plain)], axis=1, dtype=float))
        for index in range(len(tables))
    ]
    parts = [Arrays(*one[:2], classes, one[2]) for one in zip(inputs, targets, more, strict=True)]
    whole = dict(zip(given, parts, strict=True))
    digest = digest_of(
        {f"{key}{_NUMBERS[name]}": one for name, part in whole.items() for key, one in part.batch().items()}
    )
    labels = [label for feature in plain for label in feature.labels]
    filled = _filled(tables[0], labels, shared_out(whole["train"], params, whole.get("validation"), whole.get("test")))
    real = params.standardize_target and classes is None
    made = standardized(*filled, input=params.standardize, target=real)
    for before, after in zip(filled, made, strict=True):
        if before is not None and after is not None:
            _refuse_unheld(tables[0].path, labels, before.input, after.input)
            if classes is None:
                _refuse_unheld(tables[0].path, [params.target], before.target, after.target)
    taken = {name: feature.understood for name, feature in features.items()} | {params.target: target}
    understood = (
        *(Understood(table.path.name, "table", note=table.note) for table in tables),
        *(taken.get(name) or _left_out(name, params) for name in tables[0].cells.column_names),
    )
    data = loaded(*made, source=str(tables[0].path), digest=digest)
    data = replace(data, understood=understood, classes=names)
    if not numbered:
        return data
    field = Field((len(numbered),), torch.int64, sum(len(feature.labels) for feature in numbered))
    return replace(data, info=replace(data.info, more={"categories": field}, inputs=("input", "categories")))


def _numbered(features: list[Feature], tables: int) -> list[dict[str, Tensor]]:
    """Of each table the categories (rows, columns); each column's numbers begin after those of the one before it."""
    if not features:
        return [{} for _ in range(tables)]
    begins = np.cumsum([0, *(len(feature.labels) for feature in features[:-1])])
    joined = [np.concatenate([feature.parts[index] for feature in features], axis=1) for index in range(tables)]
    return [{"categories": torch.from_numpy(one + begins)} for one in joined]


def _feature_names(params: TableParams, table: Table) -> list[str]:
    for name in [params.target, *(params.features or ()), *params.exclude, *params.categories]:
        table.named(name)
    left_out = {params.target, *params.exclude}
    given = params.features or [name for name in table.cells.column_names if not _is_index(table, name)]
    names = [name for name in given if name not in left_out]
    if not names:
        raise EpochalError(f"{table.path}: no column is left to predict {params.target!r} from")
    return list(dict.fromkeys(names))


def _left_out(name: str, params: TableParams) -> Understood:
    unasked = not params.features and name not in params.exclude
    return Understood(name or "(no name)", "left out", note="an index: no name, and each value once" if unasked else "")


def _is_index(table: Table, name: str) -> bool:
    """Whether it is the index that pandas and R write in front of a table: it has no name, and each value once."""
    if name not in ("", "Unnamed: 0"):
        return False
    values = table.column(name, mixed=True).values
    return values.dtype.kind in "iO" and len(set(values.tolist())) == len(values)


def _feature(tables: list[Table], name: str, params: TableParams) -> Feature:
    columns = _alike(tables, name, [table.column(name, text=name in params.categories) for table in tables])
    missing = sum(len(column.missing) for column in columns)
    notes = [column.note for column in columns if column.note]
    if columns[0].is_text:
        return _categories(tables[0].path, name, columns, notes, params.categories_as)
    if len(columns[0].missing) == len(columns[0].values):
        hint = f"leave it out: data.params.exclude: [{name}]"
        raise EpochalError(f"{tables[0].path} (column {name!r}): found no value, expected numbers or text", hint)
    notes += _doubts(columns[0].values)
    for table, column in zip(tables, columns, strict=True):
        _refuse_unreal(table, name, column)
        if len(column.missing):
            become = "becomes" if len(column.missing) == 1 else "become"
            notes.append(f"{table.rows(column.missing)} of {table.path.name} {become} the mean of the training part")
    understood = Understood(name or "(no name)", "number", missing, "; ".join(dict.fromkeys(notes)))
    return Feature((name,), [column.values[:, None] for column in columns], understood)


def _doubts(values: NDArray[Any]) -> Iterator[str]:
    """What a person may not have meant of a column of numbers."""
    if len(values) > 2 and values[0] in (0, 1) and np.array_equal(values, values[0] + np.arange(len(values))):
        yield f"counts the rows from {values[0]:g}: an index, to be left out by data.params.exclude?"
    elif len(values) > 1 and (values == values[0]).all():
        yield f"always {values[0]:g}"


def _alike(tables: list[Table], name: str, columns: list[Column]) -> list[Column]:
    """The columns of the tables, which are either all numbers or all text; one without any value is as the others."""
    kinds = [column.is_text for column in columns if len(column.missing) < len(column.values)]
    if len(set(kinds)) > 1:
        told = " and ".join(
            f"{'text' if column.is_text else 'numbers'} in {table.path}"
            for table, column in zip(tables, columns, strict=True)
        )
        hint = f"mend it, or take it as text in both: data.params.categories: [{name}]"
        raise EpochalError(f"column {name!r}: found {told}, expected the same in both", hint)
    if not any(kinds):
        return columns
    return [c if c.is_text else replace(c, values=np.full(len(c.values), None, dtype=object)) for c in columns]


def _categories(path: Path, name: str, columns: list[Column], notes: list[str], taken_as: str) -> Feature:
    texts = [np.asarray(["" if value is None else value for value in column.values], dtype=str) for column in columns]
    categories = np.unique(np.concatenate(texts))
    if len(categories) > (most := MAX_CATEGORIES[taken_as]):
        raise EpochalError(
            f"{path}: the text column {name!r} has {len(categories)} different values, more than {most}",
            f"{'make a number of the dates, or ' if DATES in notes else ''}leave it out: data.params.exclude: [{name}]",
        )
    told = f"{len(categories)} values: {some([str(category) or '(missing)' for category in categories], 8)}"
    if len(categories) == sum(map(len, texts)):
        told += "; each in one row: names, to be left out by data.params.exclude?"
    missing = sum(len(column.missing) for column in columns)
    return Feature(
        tuple(f"{name}={category}" for category in categories),
        [np.searchsorted(categories, text)[:, None] for text in texts]
        if taken_as == "numbers"
        else [text[:, None] == categories[None, :] for text in texts],
        Understood(name or "(no name)", "category", missing, "; ".join(dict.fromkeys([told, *notes]))),
        numbered=taken_as == "numbers",
    )


def _refuse_unreal(table: Table, name: str, column: Column) -> None:
    values = column.values
    large = values[np.abs(values.astype(np.float64)) >= EXACT] if values.dtype.kind in "iu" else values[:0]
    if len(np.unique(large)) > len(np.unique(large.astype(np.float64))):
        raise EpochalError(
            f"{table.path} (column {name!r}): found whole numbers so large that float64 cannot tell them apart",
            f"leave it out: data.params.exclude: [{name}]; or take it as text: data.params.categories: [{name}]",
        )
    if len(infinite := np.flatnonzero(np.isinf(column.values))):
        raise EpochalError(
            f"{table.path} (column {name!r}, {table.rows(infinite)}): found a number that is not finite",
            "mend it, or drop the row",
        )


def _targets(tables: list[Table], params: TableParams) -> tuple[list[Tensor], tuple[str, ...], Understood]:
    """The target of each table, the names of its classes, and what it was taken for."""
    name, as_text = params.target, params.target in params.categories
    columns = [table.column(name, as_text, mixed=params.target_kind == "class", target=True) for table in tables]
    for table, column in zip(tables, columns, strict=True):
        if len(missing := column.missing):
            raise EpochalError(
                f"{table.path} misses values of the target {name!r} in {len(missing)} of {len(column.values)} rows"
                f" ({table.rows(missing)})",
                "fill them in or drop the rows; or say what stands for a missing value: data.params.missing",
            )
    columns = _alike(tables, name, columns)
    kind = params.target_kind or ("real" if any(column.values.dtype.kind == "f" for column in columns) else "class")
    values = [column.values.astype(str) if column.is_text else column.values for column in columns]
    if kind == "class":
        classes, counts = np.unique(np.concatenate(values), return_counts=True)
        numbers = [torch.from_numpy(np.searchsorted(classes, value)) for value in values]
        doubts = () if params.target_kind else unsure(classes, is_class=True)
        note = "; ".join([classes_shown(classes, counts), *doubts])
        return numbers, tuple(map(str, classes)), Understood(name, "target, class", note=note)
    if columns[0].is_text:
        raise EpochalError(f"{tables[0].path}: the target {name!r} is text, not a real value")
    for table, column in zip(tables, columns, strict=True):
        _refuse_unreal(table, name, column)
    reals = [torch.from_numpy(value.astype(np.float64)) for value in values]
    doubts = () if params.target_kind else unsure(np.unique(np.concatenate(values)), is_class=False)
    note = "; ".join(filter(None, [columns[0].note, *doubts]))
    return reals, (), Understood(name, "target, real", note=note)


def _filled(table: Table, labels: list[str], parts: Parts) -> Parts:
    """Missing numbers become the mean of the training part."""
    means = parts.train.input.nanmean(dim=0)
    for index in means.isnan().nonzero().flatten().tolist():
        raise EpochalError(
            f"{table.path} (column {labels[index]!r}): found no value in the training part, expected some",
            f"leave it out: data.params.exclude: [{labels[index]}]",
        )

    def fill(part: Arrays) -> Arrays:
        return replace(part, input=torch.where(part.input.isnan(), means, part.input))

    return parts.map(fill)


def _refuse_unheld(path: Path, labels: list[str], before: Tensor, after: Tensor) -> None:
    for index in unheld(before, after).nonzero().flatten().tolist() if labels else ():
        values = before.reshape(len(before), -1)[:, index]
        raise EpochalError(
            f"{path} (column {labels[index]!r}): found values from {values.min():g} to {values.max():g}, which float32"
            " cannot hold or tell apart",
            "standardise it (data.params.standardize, standardize_target), rescale it, or leave it out",
        )


ENTRY = Dataset(
    summary="Your own table, CSV or Parquet: one column is the target, the others are features",
    source="https://arrow.apache.org/docs/python/csv.html",
    params=TableParams,
    build=build,
    task=None,
)
