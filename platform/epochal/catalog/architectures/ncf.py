"""Neural collaborative filtering (He et al. 2017, https://arxiv.org/abs/1708.05031): NeuMF, of two halves."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field as Bounds
from torch import Tensor, nn

from epochal.catalog.architectures.two_tower import RATINGS, counted
from epochal.catalog.data import DataInfo
from epochal.catalog.entry import Architecture, Params


class NcfParams(Params):
    factors: Annotated[int, Bounds(ge=1)] = 8
    """Predictive factors: width of what each half ends in; the perceptron has layers of 4, 2 and 1 times as many."""
    dropout: Annotated[float, Bounds(ge=0, lt=1)] = 0.0
    """Share of each layer's outputs that training sets to zero."""


class Ncf(nn.Module):
    """Generalised matrix factorisation beside a perceptron, each with embeddings of its own."""

    def __init__(self, params: NcfParams, users: int, items: int) -> None:
        super().__init__()
        width = params.factors
        self.user_factors, self.item_factors = nn.Embedding(users, width), nn.Embedding(items, width)
        self.user, self.item = nn.Embedding(users, 2 * width), nn.Embedding(items, 2 * width)
        self.perceptron = nn.Sequential()
        for before, after in ((4 * width, 2 * width), (2 * width, width)):
            self.perceptron.extend([nn.Linear(before, after), nn.ReLU(), nn.Dropout(params.dropout)])
        self.head = nn.Linear(2 * width, 1)
        # Section 4.1. From torch's embeddings, of deviation 1, the products of the factors begin far from 0.
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.01)

    def forward(self, user: Tensor, candidates: Tensor) -> Tensor:
        """``user``: (batch,), ``candidates``: (batch, items); returns scores (batch, items)."""
        users = user[:, None].expand_as(candidates)
        product = self.user_factors(users) * self.item_factors(candidates)
        joined = self.perceptron(torch.cat([self.user(users), self.item(candidates)], dim=-1))
        scores: Tensor = self.head(torch.cat([product, joined], dim=-1)).squeeze(-1)
        return scores


def build(params: NcfParams, info: DataInfo) -> Ncf:
    return Ncf(params, *counted("ncf", info))


ENTRY = Architecture(
    summary="Matrix factorisation beside a perceptron over users and items, as NeuMF",
    source="He et al. 2017, Neural collaborative filtering, https://arxiv.org/abs/1708.05031",
    params=NcfParams,
    build=build,
    example=RATINGS,
)
