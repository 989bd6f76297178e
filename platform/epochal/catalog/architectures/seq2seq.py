"""The transformer of encoder and decoder (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762), as in the paper.

Normalised after each part, sinusoidal positions, embeddings scaled by the root of their width, and the matrix of the
target's embedding as that of the outputs.
"""

from __future__ import annotations

from math import log, sqrt
from typing import Annotated, Literal

import torch
from pydantic import Field as Bounds
from torch import Tensor, nn
from torch.nn import functional as F

from epochal.catalog.architectures.sequence import token_ids
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.entry import Architecture, Params
from epochal.errors import EpochalError

SIZES: dict[str, tuple[int, int, int, int]] = {
    "small": (128, 2, 4, 512), "base": (512, 6, 8, 2048), "big": (1024, 6, 16, 4096),
}  # fmt: skip
"""Width, layers of encoder and of decoder, heads, width of the feed-forward part."""


class Seq2SeqParams(Params):
    size: Literal["small", "base", "big"] = "small"
    """Width and layers: `base` and `big` of the paper, or one for trying things out."""
    shared: Literal["target", "all"] = "target"
    """What shares the matrix of the outputs: the target's embedding, or the source's too, which then has the same
    vocabulary, as in the paper."""
    dropout: Annotated[float, Bounds(ge=0, lt=1)] = 0.0
    """Share of the embeddings, and of each part's outputs, set to zero in training; in the paper 0.1, for `big` 0.3."""


class Attention(nn.Module):
    """Multi-head attention from one sequence to another, or to itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, memory: Tensor, seen: Tensor | None = None) -> Tensor:
        """x: (batch, time, width), ``memory``: (batch, source, width); ``seen``: (batch, 1, 1, source), the places that
        may be attended to, None: those up to one's own. Returns the shape of x."""
        query, key, value = (
            layer(of).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, of in ((self.query, x), (self.key, memory), (self.value, memory))
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, is_causal=seen is None)
        result: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return result


class FeedForward(nn.Sequential):
    """Of each place by itself: two layers with a ReLU between them."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__(nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, width))


class EncoderLayer(nn.Module):
    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.attention, self.feedforward = Attention(width, heads), FeedForward(width, inner)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """x: (batch, source, width); returns the same shape."""
        x = self.norm1(x + self.dropout(self.attention(x, x, seen)))
        result: Tensor = self.norm2(x + self.dropout(self.feedforward(x)))
        return result


class DecoderLayer(nn.Module):
    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.attention, self.across = Attention(width, heads), Attention(width, heads)
        self.feedforward = FeedForward(width, inner)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor, seen: Tensor) -> Tensor:
        """x: (batch, time, width), ``memory``: (batch, source, width); ``seen`` of it count. Returns the shape of x."""
        x = self.norm1(x + self.dropout(self.attention(x, x)))
        x = self.norm2(x + self.dropout(self.across(x, memory, seen)))
        result: Tensor = self.norm3(x + self.dropout(self.feedforward(x)))
        return result


class Seq2Seq(nn.Module):
    def __init__(self, params: Seq2SeqParams, vocabulary: int, outputs: int, longest: int) -> None:
        super().__init__()
        width, layers, heads, inner = SIZES[params.size]
        self.target = nn.Embedding(outputs, width)
        self.source = self.target if params.shared == "all" else nn.Embedding(vocabulary, width)
        self.dropout = nn.Dropout(params.dropout)
        self.encoder = nn.ModuleList(EncoderLayer(width, heads, inner, params.dropout) for _ in range(layers))
        self.decoder = nn.ModuleList(DecoderLayer(width, heads, inner, params.dropout) for _ in range(layers))
        self.register_buffer("positions", sinusoids(longest, width), persistent=False)
        self.positions: Tensor
        for name, parameter in self.named_parameters():
            # Embeddings are multiplied by the root of the width (section 3.4), and so begin with a deviation of 1; as
            # the matrix of the outputs, which is not, the same weights give scores of about 1.
            if name in ("source.weight", "target.weight"):
                nn.init.normal_(parameter, std=width**-0.5)
            elif parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, source: Tensor, shown: Tensor, length: Tensor) -> Tensor:
        """``source``: (batch, source) token ids, of which ``length`` (batch,) count; ``shown``: (batch, time), what is
        said so far. Returns (batch, time, vocabulary): for each place what comes next."""
        # The first place is always seen: attention to nothing is not a number.
        seen = torch.arange(source.shape[1], device=source.device) < length.clamp(min=1)[:, None]
        seen = seen[:, None, None]
        memory = self._embedded(self.source, source)
        for layer in self.encoder:
            memory = layer(memory, seen)
        x = self._embedded(self.target, shown)
        for layer in self.decoder:
            x = layer(x, memory, seen)
        return F.linear(x, self.target.weight)

    def _embedded(self, embedding: nn.Embedding, tokens: Tensor) -> Tensor:
        vectors = embedding(tokens) * sqrt(embedding.embedding_dim) + self.positions[: tokens.shape[1]]
        result: Tensor = self.dropout(vectors)
        return result


def sinusoids(length: int, width: int) -> Tensor:
    """Positions of section 3.5 of the paper, (length, width)."""
    places = torch.arange(length)[:, None]
    angles = places * torch.exp(torch.arange(0, width, 2) * (-log(10_000.0) / width))
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def build(params: Seq2SeqParams, info: DataInfo) -> Seq2Seq:
    length, vocabulary = token_ids("seq2seq", info)
    outputs = info.target.classes
    if info.inputs != ("input", "decoder_input", "length") or outputs is None or len(info.target.shape) != 1:
        raise EpochalError(
            f"seq2seq takes input, decoder_input and length, and the data's inputs are {', '.join(info.inputs)}",
            "use the dataset dates; catalog/datasets/token_pairs.py makes these fields of pairs of sequences",
        )
    if params.shared == "all" and outputs != vocabulary:
        told = f"shared: all needs one vocabulary, and the source's has {vocabulary} tokens, the target's {outputs}"
        raise EpochalError(told, "use shared: target")
    return Seq2Seq(params, vocabulary, outputs, max(length, info.target.shape[0]))


ENTRY = Architecture(
    summary="Transformer encoder and decoder, small, base or big, from one sequence of tokens to another",
    source="Vaswani et al. 2017, Attention is all you need, https://arxiv.org/abs/1706.03762",
    params=Seq2SeqParams,
    build=build,
    example=DataInfo(
        Field((12,), torch.int64, classes=40),
        Field((8,), torch.int64, classes=14),
        {"decoder_input": Field((8,), torch.int64, classes=14), "length": Field((), torch.int64, classes=13)},
        inputs=("input", "decoder_input", "length"),
    ),
)
