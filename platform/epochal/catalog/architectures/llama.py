"""Decoder-only transformers as LLaMA (Touvron et al. 2023, https://arxiv.org/abs/2302.13971).

Root mean square norms, rotary positions, gated feed-forward parts and keys shared by groups of queries (Llama 2 70B
and Llama 3). Modules are named as in the published checkpoints of the ``transformers`` library.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field as Bounds
from torch import Tensor, nn
from torch.nn import functional as F

from epochal.catalog.architectures.sequence import own_record, token_ids
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.entry import Architecture, Params
from epochal.errors import EpochalError


class Shape(NamedTuple):
    width: int
    layers: int
    heads: int
    groups: int
    feedforward: int
    base: float


SIZES: dict[str, Shape] = {
    "nano": Shape(48, 3, 4, 2, 128, 10_000.0),
    "micro": Shape(128, 4, 4, 2, 344, 10_000.0),
    "1.1b": Shape(2048, 22, 32, 4, 5632, 10_000.0),
    "7b": Shape(4096, 32, 32, 32, 11008, 10_000.0),
    "13b": Shape(5120, 40, 40, 40, 13824, 10_000.0),
    "8b": Shape(4096, 32, 32, 8, 14336, 500_000.0),
}


class LlamaParams(Params):
    size: Literal["nano", "micro", "1.1b", "7b", "13b", "8b"] = "nano"
    """`1.1b` is TinyLlama, `7b` and `13b` are Llama 2, `8b` is Llama 3."""
    width: Annotated[int, Bounds(ge=2)] | None = None
    """Of every vector, in place of the size's; `heads` times an even number."""
    layers: Annotated[int, Bounds(ge=1, le=1000)] | None = None
    """In place of the size's."""
    heads: Annotated[int, Bounds(ge=1)] | None = None
    """Of queries, in place of the size's; a multiple of `groups`."""
    groups: Annotated[int, Bounds(ge=1)] | None = None
    """Heads of keys and values, in place of the size's."""
    feedforward: Annotated[int, Bounds(ge=1)] | None = None
    """Width of the feed-forward part, in place of the size's."""
    base: Annotated[float, Bounds(gt=1)] | None = None
    """Of the wave lengths of rotary positions, in place of the size's."""


class RmsNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., width); returns the same shape, computed in fp32."""
        whole = x.float()  # the squares of a wide vector overflow in fp16, and lose their sum's digits in bf16
        normed = whole * torch.rsqrt(whole.square().mean(-1, keepdim=True) + 1e-5)
        return self.weight * normed.to(x.dtype)


def rotated(x: Tensor, base: float, places: Tensor) -> Tensor:
    """Rotate pairs of values by angles that grow with the place in the sequence (Su et al. 2021, RoFormer).

    x: (batch, heads, time, width), whose value ``i`` and ``i + width / 2`` are a pair; ``places``: (time,), or
    (batch, 1, time). Returns the shape of x.
    """
    width = x.shape[-1]
    frequencies = base ** (-torch.arange(0, width, 2, device=x.device, dtype=torch.float32) / width)
    angles = places[..., None] * frequencies
    cosine, sine = (torch.cat([part, part], -1).to(x.dtype) for part in (angles.cos(), angles.sin()))
    first, second = x.chunk(2, -1)
    return x * cosine + torch.cat([-second, first], -1) * sine


class GroupedAttention(nn.Module):
    """Causal attention in which groups of queries share keys and values."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape, head = shape, shape.width // shape.heads
        self.q_proj = nn.Linear(shape.width, shape.heads * head, bias=False)
        self.k_proj = nn.Linear(shape.width, shape.groups * head, bias=False)
        self.v_proj = nn.Linear(shape.width, shape.groups * head, bias=False)
        self.o_proj = nn.Linear(shape.heads * head, shape.width, bias=False)

    def forward(self, x: Tensor, places: Tensor, seen: Tensor | None = None) -> Tensor:
        """x: (batch, time, width), ``places`` as ``rotated`` takes them; returns the same shape.

        ``seen``: (batch, 1, time, time), what each token may attend to; None is all before it.
        """
        heads, groups, base = self.shape.heads, self.shape.groups, self.shape.base
        query = rotated(self.q_proj(x).unflatten(-1, (heads, -1)).transpose(1, 2), base, places)
        key = rotated(self.k_proj(x).unflatten(-1, (groups, -1)).transpose(1, 2), base, places)
        value = self.v_proj(x).unflatten(-1, (groups, -1)).transpose(1, 2)
        if groups < heads:
            key, value = (one.repeat_interleave(heads // groups, dim=1) for one in (key, value))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, is_causal=seen is None)
        result: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return result


class GatedFeedForward(nn.Module):
    """SwiGLU (Shazeer 2020, https://arxiv.org/abs/2002.05202)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., width); returns the same shape."""
        result: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return result


class DecoderLayer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = GroupedAttention(shape)
        self.mlp = GatedFeedForward(shape.width, shape.feedforward)
        self.input_layernorm = RmsNorm(shape.width)
        self.post_attention_layernorm = RmsNorm(shape.width)

    def forward(self, x: Tensor, places: Tensor, seen: Tensor | None = None) -> Tensor:
        """x: (batch, time, width); returns the same shape. The others are as its attention takes them."""
        x = x + self.self_attn(self.input_layernorm(x), places, seen)
        result: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return result


class Decoder(nn.Module):
    def __init__(self, vocabulary: int, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, shape.width)
        self.layers = nn.ModuleList(DecoderLayer(shape) for _ in range(shape.layers))
        self.norm = RmsNorm(shape.width)

    def forward(self, x: Tensor, record: Tensor | None = None) -> Tensor:
        """x: (batch, time) token ids, ``record`` as ``Llama`` takes it; returns (batch, time, width)."""
        places, seen = torch.arange(x.shape[1], device=x.device), None
        if record is not None:
            own, same = own_record(record)
            places, seen = own[:, None], same.tril()
        hidden = self.embed_tokens(x)
        for layer in self.layers:
            hidden = layer(hidden, places, seen)
        result: Tensor = self.norm(hidden)
        return result


class Llama(nn.Module):
    def __init__(self, vocabulary: int, shape: Shape) -> None:
        super().__init__()
        self.model = Decoder(vocabulary, shape)
        self.lm_head = nn.Linear(shape.width, vocabulary, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, x: Tensor, record: Tensor | None = None) -> Tensor:
        """x: (batch, time) token ids; returns (batch, time, vocabulary): for each token, of the next one.

        ``record``: (batch, time), which record a token is of, where a row holds several; none sees another.
        """
        logits: Tensor = self.lm_head(self.model(x, record))
        return logits


def build(params: LlamaParams, info: DataInfo) -> Llama:
    _, vocabulary = token_ids("llama", info)
    own = params.model_dump(exclude={"size"}, exclude_none=True)
    shape = SIZES[params.size]._replace(**own)
    if shape.heads % shape.groups or shape.width % (2 * shape.heads):
        told = f"width {shape.width}, heads {shape.heads}, groups {shape.groups}"
        raise EpochalError(f"llama: {told}: width has to be heads times an even number, and heads a multiple of groups")
    return Llama(vocabulary, shape)


ENTRY = Architecture(
    summary="Decoder-only transformer as LLaMA: RMS norms, rotary positions, gated feed-forward, grouped queries",
    source="Touvron et al. 2023, LLaMA: open and efficient foundation language models, https://arxiv.org/abs/2302.13971",
    params=LlamaParams,
    build=build,
    example=DataInfo(input=Field((16,), torch.int64, classes=65), target=Field((16,), torch.int64, classes=65)),
)
