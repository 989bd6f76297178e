"""Transformer encoders as BERT (Devlin et al. 2019, https://arxiv.org/abs/1810.04805), and a layer to read them out.

Modules are named as in the published checkpoints of the ``transformers`` library, so that those load by
``train.init_from``: what is to be trained anew, ``classifier``, is listed as missing.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field as Bounds
from torch import Tensor, nn
from torch.nn import functional as F

from epochal.catalog.architectures.sequence import not_padding, refuse_padding, token_ids
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.entry import Architecture, Params
from epochal.errors import EpochalError

SIZES: dict[str, tuple[int, int, int]] = {
    "tiny": (128, 2, 2), "mini": (256, 4, 4), "small": (512, 4, 8), "medium": (512, 8, 8), "base": (768, 12, 12),
    "large": (1024, 24, 16),
}  # fmt: skip
"""Width, layers and heads: `base` and `large` of the paper, the others of Turc et al. 2019."""


class BertParams(Params):
    size: Literal["tiny", "mini", "small", "medium", "base", "large"] = "tiny"
    """Width, layers and heads: `base` and `large` of the paper, the others of Turc et al. 2019."""
    positions: Annotated[int, Bounds(ge=1)] = 512
    """Longest sequence."""
    padding: Annotated[int, Bounds(ge=0)] | None = None
    """Token id that stands where a sequence has ended, to which no other token attends; null: there is none."""
    dropout: Annotated[float, Bounds(ge=0, lt=1)] = 0.0
    """Share of the embeddings, and of each part's outputs, that training sets to zero; the paper's is 0.1."""


class Embeddings(nn.Module):
    def __init__(self, vocabulary: int, positions: int, width: int, dropout: float) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, width)
        self.position_embeddings = nn.Embedding(positions, width)
        self.token_type_embeddings = nn.Embedding(2, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, time) token ids, all of the first type; returns (batch, time, width)."""
        places = self.position_embeddings.weight[: x.shape[1]] + self.token_type_embeddings.weight[0]
        result: Tensor = self.dropout(self.LayerNorm(self.word_embeddings(x) + places))
        return result


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        """x: (batch, time, width); ``seen``: (batch, 1, 1, time), what may be attended to. Returns the shape of x."""
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        return F.scaled_dot_product_attention(query, key, value, attn_mask=seen).transpose(1, 2).flatten(2)


class Added(nn.Module):
    """A linear layer whose output is added to what was there, and normalised."""

    def __init__(self, inputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        """x: (batch, time, inputs), ``before``: (batch, time, width); returns the shape of ``before``."""
        result: Tensor = self.LayerNorm(before + self.dropout(self.dense(x)))
        return result


class Dense(nn.Module):
    """A linear layer and what follows it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, outputs)


class Layer(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": SelfAttention(width, heads), "output": Added(width, width, dropout)})
        self.intermediate = Dense(width, 4 * width)
        self.output = Added(4 * width, width, dropout)

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        """x: (batch, time, width); returns the same shape."""
        x = self.attention["output"](self.attention["self"](x, seen), x)
        result: Tensor = self.output(F.gelu(self.intermediate.dense(x)), x)
        return result


class Encoder(nn.Module):
    """Embeddings, layers, and the first token's vector as that of the sequence."""

    def __init__(self, vocabulary: int, shape: tuple[int, int, int], params: BertParams) -> None:
        super().__init__()
        width, layers, heads = shape
        self.padding = params.padding
        self.embeddings = Embeddings(vocabulary, params.positions, width, params.dropout)
        self.encoder = nn.ModuleDict(
            {"layer": nn.ModuleList(Layer(width, heads, params.dropout) for _ in range(layers))}
        )
        self.pooler = Dense(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, time) token ids; returns (batch, width)."""
        counts = not_padding(x, self.padding)
        seen = None if counts is None else counts[:, None, None]
        hidden = self.embeddings(x)
        layers: Any = self.encoder["layer"]
        for layer in layers:
            hidden = layer(hidden, seen)
        return torch.tanh(self.pooler.dense(hidden[:, 0]))


class Bert(nn.Module):
    def __init__(self, vocabulary: int, params: BertParams, outputs: int) -> None:
        super().__init__()
        shape = SIZES[params.size]
        self.bert = Encoder(vocabulary, shape, params)
        self.dropout = nn.Dropout(params.dropout)
        self.classifier = nn.Linear(shape[0], outputs)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, time) token ids; returns (batch, outputs)."""
        logits: Tensor = self.classifier(self.dropout(self.bert(x)))
        return logits


def build(params: BertParams, info: DataInfo) -> Bert:
    length, vocabulary = token_ids("bert", info)
    if length > params.positions:
        raise EpochalError(f"bert: positions is {params.positions}, and the data's sequences have {length} tokens")
    refuse_padding("bert", params.padding, info)
    return Bert(vocabulary, params, info.target.width)


ENTRY = Architecture(
    summary="Transformer encoder as BERT, from tiny to large, read out at its first token",
    source="Devlin et al. 2019, BERT, https://arxiv.org/abs/1810.04805",
    params=BertParams,
    build=build,
    example=DataInfo(input=Field((12,), torch.int64, classes=50), target=Field((), classes=5)),
)
