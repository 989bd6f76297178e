"""Who took what: made up, or from a table of yours; each with things that the same person did not take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field as Bounds
from torch import Generator, Tensor

from epochal.catalog.data import DataInfo, Field, LoadedData
from epochal.catalog.datasets.files import existing
from epochal.catalog.datasets.in_memory import PartitionParams, digest_of, parts
from epochal.catalog.datasets.table_file import TableFormat, read_table
from epochal.catalog.entry import Dataset
from epochal.catalog.understood import Understood
from epochal.errors import EpochalError

Size = Annotated[int, Bounds(ge=1)]


class RatingsParams(PartitionParams):
    path: Annotated[str, Bounds(min_length=1)] | None = None
    """A table, .csv or .parquet, with a row for each thing that someone took; relative to the spec's folder. null: made
    up."""
    user: str = "user"
    """The table's column of who."""
    item: str = "item"
    """The table's column of what."""
    users: Size = 200
    """How many, of made-up ones."""
    items: Size = 150
    """How many, of made-up ones."""
    taken: Size = 20
    """Things that each made-up user takes."""
    rank: Size = 4
    """Hidden tastes that what is made up follows."""
    noise: Annotated[float, Bounds(ge=0)] = 0.3
    """Standard deviation of what is added to what a user thinks of an item, beside the 1 of the tastes."""
    negatives: Size = 50
    """Things not taken that each taken one is ranked among: the same in every epoch, drawn by `seed`."""


def build(params: RatingsParams, folder: Path) -> LoadedData:
    """input: () a user; candidates: (1 + negatives,) items; target: () the place of the one taken among them."""
    generator = torch.Generator().manual_seed(params.seed)
    if params.path is None:
        users, items, counts = *_made_up(params, generator), (params.users, params.items)
    else:
        users, items, counts = _read(params, folder)
    candidates = _others(users, counts[1], items, params.negatives, generator)
    place = torch.randint(0, 1 + params.negatives, users.shape, generator=generator)
    candidates.scatter_(1, place[:, None], items[:, None])
    batch = {"input": users, "target": place, "candidates": candidates}
    info = DataInfo(
        Field((), torch.int64, counts[0]),
        Field((), torch.int64, 1 + params.negatives),
        {"candidates": Field((1 + params.negatives,), torch.int64, counts[1])},
        inputs=("input", "candidates"),
    )
    source = params.path or "ratings"
    told = f"{len(users):,} taken, by {counts[0]:,} users, of {counts[1]:,} items"
    understood = (Understood(source, told, note=f"each among {params.negatives} not taken"),)
    digest = digest_of({"users": users, "items": items})
    train, validation, test = parts(batch, params, users)
    return LoadedData(train, validation, info, digest, source, understood, test=test)


def _made_up(params: RatingsParams, generator: Generator) -> tuple[Tensor, Tensor]:
    """Users and items (taken,): of each user those that it thinks most of."""
    if params.taken >= params.items:
        raise EpochalError(f"taken is {params.taken} of {params.items} items", "leave some that are not taken")
    tastes, kinds = (torch.randn(size, params.rank, generator=generator) for size in (params.users, params.items))
    thought = tastes @ kinds.T / params.rank**0.5
    thought += params.noise * torch.randn(thought.shape, generator=generator)
    items = thought.topk(params.taken, dim=1).indices
    return torch.arange(params.users).repeat_interleave(params.taken), items.flatten()


def _read(params: RatingsParams, folder: Path) -> tuple[Tensor, Tensor, tuple[int, int]]:
    table = read_table(
        existing(params.path or "", folder), TableFormat(None, None, None, None), [params.user, params.item]
    )
    numbers, counts = [], []
    for name in (params.user, params.item):
        column = table.column(name, text=True)
        if len(column.missing):
            told = (
                f"{table.path} (column {name!r}, {table.rows(column.missing)}): found nothing, expected a name or an id"
            )
            raise EpochalError(told, "fill it in, or drop the row")
        known, of = np.unique(column.values.astype(str), return_inverse=True)
        numbers.append(torch.from_numpy(of.reshape(-1)))
        counts.append(len(known))
    return numbers[0], numbers[1], (counts[0], counts[1])


def _others(users: Tensor, count: int, items: Tensor, negatives: int, generator: Generator) -> Tensor:
    """Of each of ``users`` (taken,) as many that it never took, of ``count`` there are: (taken, 1 + negatives)."""
    others = torch.empty(len(users), 1 + negatives, dtype=torch.int64)
    order = users.argsort(stable=True)
    for rows in torch.split(order, torch.bincount(users).tolist()):
        left = torch.ones(count, dtype=torch.bool).index_fill_(0, items[rows], False).nonzero().flatten()
        if not len(left):
            raise EpochalError("a user took every item: there is none to rank the others among", "drop that user")
        others[rows] = left[torch.randint(0, len(left), (len(rows), 1 + negatives), generator=generator)]
    return others


ENTRY = Dataset(
    summary="Who took what, made up or from your table, each among things not taken: to be recommended",
    source="He et al. 2017, Neural collaborative filtering, https://arxiv.org/abs/1708.05031 (its way of testing)",
    params=RatingsParams,
    build=build,
    task="recommendation",
)
