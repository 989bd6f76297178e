"""A multi-layer perceptron over numbers and embedded categories (Guo and Berkhahn 2016)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field as Bounds
from torch import Tensor, nn

from epochal.catalog.architectures.mlp import Mlp, MlpParams
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.entry import Architecture
from epochal.errors import EpochalError


class TabularParams(MlpParams):
    embedding: Annotated[int, Bounds(ge=1)] = 8
    """Width of a category's vector."""


class Tabular(nn.Module):
    def __init__(self, params: TabularParams, numbers: int, categories: Field, outputs: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(categories.width, params.embedding)
        self.mlp = Mlp(params, numbers + categories.shape[0] * params.embedding, outputs)

    def forward(self, x: Tensor, categories: Tensor) -> Tensor:
        """x: (batch, numbers) real values, ``categories``: (batch, columns), numbered through over all columns; returns
        (batch, outputs)."""
        logits: Tensor = self.mlp(torch.cat([x, self.embedding(categories).flatten(1)], dim=1))
        return logits


def build(params: TabularParams, info: DataInfo) -> Tabular:
    categories = info.more.get("categories")
    if info.inputs != ("input", "categories") or categories is None or len(info.input.shape) != 1:
        raise EpochalError(
            f"tabular takes input (numbers) and categories, and this data's inputs are {', '.join(info.inputs)}",
            "use the dataset csv with categories_as: numbers; where no column is a category, use mlp",
        )
    return Tabular(params, info.input.shape[0], categories, info.target.width)


ENTRY = Architecture(
    summary="Fully connected layers over numbers and embedded categories",
    source="Guo and Berkhahn 2016, Entity embeddings of categorical variables, https://arxiv.org/abs/1604.06737",
    params=TabularParams,
    build=build,
    example=DataInfo(
        Field((4,)),
        Field((), classes=3),
        {"categories": Field((2,), torch.int64, classes=9)},
        inputs=("input", "categories"),
    ),
)
