"""A transformer encoder (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762), normalised before each part.

Normalising first (Xiong et al. 2020, https://arxiv.org/abs/2002.04745) trains without a warm-up.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field as Bounds
from torch import Tensor, nn
from torch.nn import functional as F

from epochal.catalog.architectures.activation import Activation, activation
from epochal.catalog.architectures.sequence import Projected, learned_positions, not_padding, refuse_padding
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.entry import Architecture, Params
from epochal.errors import EpochalError


class TransformerParams(Params):
    width: Annotated[int, Bounds(ge=1)] = 64
    """Width of every vector; a multiple of `heads`."""
    layers: Annotated[int, Bounds(ge=1, le=1000)] = 2
    """Encoder layers."""
    heads: Annotated[int, Bounds(ge=1)] = 4
    """Attention heads of a layer."""
    feedforward: Annotated[int, Bounds(ge=1)] | None = None
    """Width of the feed-forward part; null is four times `width`."""
    activation: Activation = "gelu"
    """The nonlinearity of the feed-forward part."""
    dropout: Annotated[float, Bounds(ge=0, lt=1)] = 0.0
    """Share of each part's outputs that training sets to zero."""
    padding: Annotated[int, Bounds(ge=0)] | None = None
    """Token id that stands where a sequence has ended: no other token attends to it, and it does not count in what is
    read out; null: there is none."""


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """x: (batch, time, width); ``seen``: (batch, 1, 1, time), what may be attended to. Returns the shape of x."""
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)  # (batch, heads, time, width / heads)
        result: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return result


class Layer(nn.Module):
    """Attention, then a feed-forward part, each added to what goes in."""

    def __init__(self, params: TransformerParams) -> None:
        super().__init__()
        width, inner = params.width, params.feedforward or 4 * params.width
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, params.heads)
        self.feedforward = nn.Sequential(
            nn.Linear(width, inner), activation(params.activation), nn.Linear(inner, width)
        )
        self.dropout = nn.Dropout(params.dropout)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """x: (batch, time, width); returns the same shape. ``seen`` is as its attention takes it."""
        x = x + self.dropout(self.attention(self.norm1(x), seen))
        result: Tensor = x + self.dropout(self.feedforward(self.norm2(x)))
        return result


class Transformer(nn.Module):
    """An encoder whose outputs are averaged over time and read out."""

    def __init__(self, params: TransformerParams, info: DataInfo) -> None:
        super().__init__()
        self.padding = params.padding
        self.input = Projected(info.input, params.width)
        self.positions = learned_positions(self.input.length, params.width)
        self.layers = nn.Sequential(*(Layer(params) for _ in range(params.layers)))
        # What is normalised before each part is not after the last one (Xiong et al. 2020, section 3.2).
        self.norm = nn.LayerNorm(params.width)
        self.head = nn.Linear(params.width, info.target.width)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, time, features), (batch, features), images or token ids; returns (batch, outputs)."""
        counts = not_padding(x, self.padding)
        encoded = self.input(x) + self.positions
        for layer in self.layers:
            encoded = layer(encoded, None if counts is None else counts[:, None, None])
        encoded = self.norm(encoded)
        if counts is None:
            pooled = encoded.mean(dim=1)
        else:
            pooled = (encoded * counts[..., None]).sum(dim=1) / counts.sum(dim=1, keepdim=True)
        logits: Tensor = self.head(pooled)
        return logits


def build(params: TransformerParams, info: DataInfo) -> Transformer:
    if params.width % params.heads:
        raise EpochalError(f"transformer: width {params.width} is not a multiple of heads {params.heads}")
    refuse_padding("transformer", params.padding, info)
    return Transformer(params, info)


ENTRY = Architecture(
    summary="Transformer encoder over a sequence of vectors, a vector's values, token ids, or the rows of an image",
    source="Vaswani et al. 2017, Attention is all you need, https://arxiv.org/abs/1706.03762",
    params=TransformerParams,
    build=build,
    example=DataInfo(input=Field((12,), torch.int64, classes=50), target=Field((), classes=5)),
)
