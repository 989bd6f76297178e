"""Vision transformers (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929).

Modules are named as in timm, so that weights published there load by ``train.init_from``.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field as Bounds
from torch import Tensor, nn
from torch.nn import functional as F

from epochal.catalog.architectures.image import image_shape
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.entry import Architecture, Params
from epochal.errors import EpochalError

SIZES: dict[str, tuple[int, int, int]] = {
    "nano": (64, 4, 4), "tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16),
}  # fmt: skip
"""Width, layers and heads. `tiny` and `small` are those of Touvron et al. 2021, DeiT."""


class VitParams(Params):
    size: Literal["nano", "tiny", "small", "base", "large"] = "nano"
    """Width, layers and heads: `tiny` and `small` as in DeiT, `base` and `large` as in the paper."""
    patch: Annotated[int, Bounds(ge=1)] | None = None
    """Side of a patch in pixels; null is 16, or the largest power of two below it of which the image has 16 or more."""
    dropout: Annotated[float, Bounds(ge=0, lt=1)] = 0.0
    """Share of the embeddings, and of each part's outputs, that training sets to zero."""


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, tokens, width); returns the same shape."""
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(query, key, value)
        result: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return result


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., width); returns the same shape."""
        result: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return result


class Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.mlp = FeedForward(width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, tokens, width); returns the same shape."""
        x = x + self.drop(self.attn(self.norm1(x)))
        result: Tensor = x + self.drop(self.mlp(self.norm2(x)))
        return result


class Patches(nn.Module):
    """An image as a sequence of vectors, one a patch."""

    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, channels, height, width); returns (batch, patches, width)."""
        vectors: Tensor = self.proj(x)
        return vectors.flatten(2).transpose(1, 2)


class Vit(nn.Module):
    def __init__(
        self, channels: int, patches: int, patch: int, shape: tuple[int, int, int], outputs: int, dropout: float
    ) -> None:
        super().__init__()
        width, layers, heads = shape
        self.patch_embed = Patches(channels, patch, width)
        # As timm draws them: the class token next to nothing, so that it is what attention makes of it.
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) * 1e-6)
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + patches, width) * 0.02)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(width, heads, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, outputs)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, channels, height, width); returns (batch, outputs), read from the class token."""
        vectors = self.patch_embed(x)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), vectors], dim=1)
        logits: Tensor = self.head(self.norm(self.blocks(self.drop(tokens + self.pos_embed)))[:, 0])
        return logits


def build(params: VitParams, info: DataInfo) -> Vit:
    channels, height, width = image_shape("vit", info)
    patch = params.patch or next(side for side in (16, 8, 4, 2, 1) if side == 1 or _fits(side, height, width))
    if height % patch or width % patch:
        raise EpochalError(f"vit: images of {height} x {width} pixels are not made of patches of {patch} x {patch}")
    patches = (height // patch) * (width // patch)
    return Vit(channels, patches, patch, SIZES[params.size], info.target.width, params.dropout)


def _fits(side: int, height: int, width: int) -> bool:
    return not (height % side or width % side) and (height // side) * (width // side) >= 16


ENTRY = Architecture(
    summary="Vision transformer of size nano, tiny, small, base or large",
    source="Dosovitskiy et al. 2021, An image is worth 16x16 words, https://arxiv.org/abs/2010.11929",
    params=VitParams,
    build=build,
    example=DataInfo(input=Field((3, 32, 32)), target=Field((), classes=10)),
)
