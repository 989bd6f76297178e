"""Decoder-only transformers as GPT-2 (Radford et al. 2019), which predict each next token.

Modules are named, and weights laid out, as OpenAI published them (``Conv1D`` holds (inputs, outputs)), so that those
load by ``train.init_from``. The output layer is the token embedding.
"""

from __future__ import annotations

from math import sqrt
from typing import Annotated, Literal

import torch
from pydantic import Field as Bounds
from torch import Tensor, nn
from torch.nn import functional as F

from epochal.catalog.architectures.sequence import own_record, token_ids
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.entry import Architecture, Params
from epochal.errors import EpochalError

SIZES: dict[str, tuple[int, int, int]] = {
    "nano": (48, 3, 3), "micro": (128, 4, 4), "mini": (192, 6, 6), "small": (768, 12, 12), "medium": (1024, 24, 16),
    "large": (1280, 36, 20), "xl": (1600, 48, 25),
}  # fmt: skip
"""Width, layers and heads; `small` to `xl` are those of GPT-2."""


class GptParams(Params):
    size: Literal["nano", "micro", "mini", "small", "medium", "large", "xl"] = "nano"
    """Width, layers and heads; `small` to `xl` are those of GPT-2."""
    width: Annotated[int, Bounds(ge=1)] | None = None
    """Of every vector, in place of the size's; a multiple of `heads`."""
    layers: Annotated[int, Bounds(ge=1, le=1000)] | None = None
    """In place of the size's."""
    heads: Annotated[int, Bounds(ge=1)] | None = None
    """In place of the size's."""
    context: Annotated[int, Bounds(ge=1)] | None = None
    """Longest sequence; null is the data's length."""
    dropout: Annotated[float, Bounds(ge=0, lt=1)] = 0.0
    """Share of the embeddings, and of each part's outputs, that training sets to zero."""


class Conv1D(nn.Module):
    """A linear layer whose weight is (inputs, outputs)."""

    def __init__(self, inputs: int, outputs: int, deviation: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) * deviation)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., inputs); returns (..., outputs)."""
        return x @ self.weight + self.bias


class CausalAttention(nn.Module):
    """Multi-head attention to this token and those before it: ``seen`` (batch, 1, time, time) is which of them."""

    def __init__(self, width: int, heads: int, last_deviation: float) -> None:
        super().__init__()
        self.heads = heads
        self.c_attn = Conv1D(width, 3 * width, 0.02)
        self.c_proj = Conv1D(width, width, last_deviation)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """x: (batch, time, width); returns the same shape."""
        parts = self.c_attn(x).chunk(3, -1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, is_causal=seen is None)
        result: Tensor = self.c_proj(mixed.transpose(1, 2).flatten(2))
        return result


class FeedForward(nn.Module):
    def __init__(self, width: int, last_deviation: float) -> None:
        super().__init__()
        self.c_fc = Conv1D(width, 4 * width, 0.02)
        self.c_proj = Conv1D(4 * width, width, last_deviation)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., width); returns the same shape."""
        result: Tensor = self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))
        return result


class Block(nn.Module):
    """Attention, then a feed-forward part, each normalised before and added to what goes in."""

    def __init__(self, width: int, heads: int, dropout: float, last_deviation: float) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = CausalAttention(width, heads, last_deviation)
        self.mlp = FeedForward(width, last_deviation)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """x: (batch, time, width); returns the same shape."""
        x = x + self.drop(self.attn(self.ln_1(x), seen))
        result: Tensor = x + self.drop(self.mlp(self.ln_2(x)))
        return result


class Gpt(nn.Module):
    def __init__(self, vocabulary: int, context: int, shape: tuple[int, int, int], dropout: float) -> None:
        super().__init__()
        width, layers, heads = shape
        self.wte = nn.Embedding(vocabulary, width)
        self.wpe = nn.Embedding(context, width)
        nn.init.normal_(self.wte.weight, std=0.02)
        nn.init.normal_(self.wpe.weight, std=0.02)
        self.drop = nn.Dropout(dropout)
        # What is added to the residual stream grows with its depth otherwise.
        last = 0.02 / sqrt(2 * layers)
        self.h = nn.ModuleList(Block(width, heads, dropout, last) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)

    def forward(self, x: Tensor, record: Tensor | None = None) -> Tensor:
        """x: (batch, time) token ids; returns (batch, time, vocabulary): for each token, of the next one.

        ``record``: (batch, time), which record a token is of, where a row holds several; none sees another.
        """
        positions, seen = torch.arange(x.shape[1], device=x.device), None
        if record is not None:
            positions, same = own_record(record)
            seen = same.tril()
        hidden = self.drop(self.wte(x) + self.wpe(positions))
        for block in self.h:
            hidden = block(hidden, seen)
        # The embedding is the matrix of the outputs too (Press and Wolf 2017, https://arxiv.org/abs/1608.05859).
        return F.linear(self.ln_f(hidden), self.wte.weight)


def build(params: GptParams, info: DataInfo) -> Gpt:
    length, vocabulary = token_ids("gpt", info)
    width, layers, heads = (
        own or usual for own, usual in zip((params.width, params.layers, params.heads), SIZES[params.size], strict=True)
    )
    if width % heads:
        raise EpochalError(f"gpt: width {width} is not a multiple of heads {heads}")
    if params.context is not None and params.context < length:
        raise EpochalError(f"gpt: context is {params.context}, and the data's sequences have {length} tokens")
    return Gpt(vocabulary, params.context or length, (width, layers, heads), params.dropout)


ENTRY = Architecture(
    summary="Decoder-only transformer as GPT-2, from nano to xl, that predicts each next token",
    source="Radford et al. 2019, Language models are unsupervised multitask learners",
    params=GptParams,
    build=build,
    example=DataInfo(input=Field((16,), torch.int64, classes=65), target=Field((16,), torch.int64, classes=65)),
)
