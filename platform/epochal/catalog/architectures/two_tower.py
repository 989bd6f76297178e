"""Two towers: users and items become vectors of one space, whose cosine is the score (Yi et al. 2019)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field as Bounds
from torch import Tensor, nn
from torch.nn import functional as F

from epochal.catalog.data import DataInfo, Field
from epochal.catalog.entry import Architecture, Params
from epochal.errors import EpochalError

RATINGS = DataInfo(
    Field((), torch.int64, classes=30),
    Field((), torch.int64, classes=6),
    {"candidates": Field((6,), torch.int64, classes=20)},
    inputs=("input", "candidates"),
)
"""An example of what the architectures of recommendation take."""


class TwoTowerParams(Params):
    embedding: Annotated[int, Bounds(ge=1)] = 32
    """Width of what is learned of each user and each item."""
    hidden: Annotated[list[Annotated[int, Bounds(ge=1)]], Bounds(max_length=20)] = [64]
    """Width of each hidden layer of a tower."""
    width: Annotated[int, Bounds(ge=1)] = 32
    """Width of the space in which they meet."""
    temperature: Annotated[float, Bounds(gt=0)] = 0.1
    """What the cosine is divided by."""


class Tower(nn.Sequential):
    """Ids to vectors of length 1, (..., width)."""

    def __init__(self, params: TwoTowerParams, count: int) -> None:
        super().__init__(nn.Embedding(count, params.embedding))
        widths = [params.embedding, *params.hidden]
        for before, after in zip(widths, params.hidden, strict=False):
            self.extend([nn.Linear(before, after), nn.ReLU()])
        self.append(nn.Linear(widths[-1], params.width))

    def forward(self, ids: Tensor) -> Tensor:
        vectors: Tensor = super().forward(ids)  # type: ignore[no-untyped-call]
        # As the paper's: without their lengths, by which popular items would score high for everybody.
        return F.normalize(vectors, dim=-1)


class TwoTower(nn.Module):
    def __init__(self, params: TwoTowerParams, users: int, items: int) -> None:
        super().__init__()
        self.user, self.item = Tower(params, users), Tower(params, items)
        self.temperature = params.temperature

    def forward(self, user: Tensor, candidates: Tensor) -> Tensor:
        """``user``: (batch,), ``candidates``: (batch, items); returns scores (batch, items)."""
        scores: Tensor = (self.user(user)[:, None] * self.item(candidates)).sum(-1) / self.temperature
        return scores


def counted(architecture: str, info: DataInfo) -> tuple[int, int]:
    """How many users and items there are.

    Raises:
        EpochalError: the data is something else.
    """
    users, items = info.input.classes, getattr(info.more.get("candidates"), "classes", None)
    if info.inputs != ("input", "candidates") or info.input.shape or users is None or items is None:
        told = f"{architecture} takes a user and candidates, and this data's inputs are {', '.join(info.inputs)}"
        raise EpochalError(told, "use the dataset ratings, made up or of a table of yours")
    return users, items


def build(params: TwoTowerParams, info: DataInfo) -> TwoTower:
    return TwoTower(params, *counted("two-tower", info))


ENTRY = Architecture(
    summary="A network for users and one for items, which meet in a cosine: for retrieval",
    source="Yi et al. 2019, Sampling-bias-corrected neural modeling for large corpus item recommendations, RecSys",
    params=TwoTowerParams,
    build=build,
    example=RATINGS,
)
