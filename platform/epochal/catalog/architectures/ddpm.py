"""The U-Net of denoising diffusion (Ho et al. 2020, https://arxiv.org/abs/2006.11239): the noise in a noisy picture.

Layers, initialisation and, with the defaults, the 35.7 million parameters are those of the paper's model for CIFAR-10.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import Annotated, TypeVar

import torch
from pydantic import Field as Bounds
from torch import Tensor, nn
from torch.nn import functional as F

from epochal.catalog.architectures.image import halved_image
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.entry import Architecture, Params

LayerT = TypeVar("LayerT", nn.Conv2d, nn.Linear)
Positive = Annotated[int, Bounds(ge=1)]
NOTHING = 1e-5
"""Gain of layers that begin with giving next to nothing: a block begins as the identity, and the whole as saying that
there is no noise."""


class DdpmParams(Params):
    channels: Annotated[int, Bounds(ge=2)] = 128
    """Of the first level; each further one has a multiple of them."""
    multipliers: Annotated[list[Positive], Bounds(min_length=1, max_length=10)] = [1, 2, 2, 2]
    """A level's channels, as multiples; each level halves the picture."""
    blocks: Positive = 2
    """Residual blocks of a level on the way down; one more on the way up."""
    attention: list[Positive] = [16]
    """Heights, in pixels, at which blocks are followed by self-attention."""
    dropout: Annotated[float, Bounds(ge=0, lt=1)] = 0.1
    """Share of the values that training sets to zero in each block."""


class Residual(nn.Module):
    """Two normalised convolutions, between which what the time says is added."""

    def __init__(self, inputs: int, outputs: int, time: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Sequential(_norm(inputs), nn.SiLU(), _conv(inputs, outputs, 3))
        self.time = nn.Sequential(nn.SiLU(), _linear(time, outputs))
        last = _conv(outputs, outputs, 3, gain=NOTHING)
        self.second = nn.Sequential(_norm(outputs), nn.SiLU(), nn.Dropout(dropout), last)
        self.shortcut = _conv(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x: (batch, inputs, height, width), time: (batch, width of its embedding)."""
        inside = self.first(x) + self.time(time)[:, :, None, None]
        result: Tensor = self.shortcut(x) + self.second(inside)
        return result


class Attention(nn.Module):
    """Every pixel attends to all, with one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.query, self.key, self.value = (_conv(channels, channels, 1) for _ in range(3))
        self.last = _conv(channels, channels, 1, gain=NOTHING)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, channels, height, width)."""
        normed = self.norm(x)
        query, key, value = (layer(normed).flatten(2) for layer in (self.query, self.key, self.value))
        weights = (query.transpose(1, 2) @ key * x.shape[1] ** -0.5).softmax(-1)
        result: Tensor = x + self.last((value @ weights.transpose(1, 2)).reshape(x.shape))
        return result


class Stage(nn.Module):
    """A residual block, and attention where ``attends``."""

    def __init__(self, inputs: int, outputs: int, params: DdpmParams, attends: bool) -> None:
        super().__init__()
        self.block = Residual(inputs, outputs, 4 * params.channels, params.dropout)
        self.attention = Attention(outputs) if attends else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x: (batch, inputs, height, width), time: (batch, width of its embedding)."""
        result: Tensor = self.attention(self.block(x, time))
        return result


class Ddpm(nn.Module):
    """``image`` is (channels, height, width)."""

    def __init__(self, params: DdpmParams, image: tuple[int, int, int]) -> None:
        super().__init__()
        self.width = params.channels
        widths = [params.channels * multiplier for multiplier in params.multipliers]
        attends = [image[1] >> level in params.attention for level in range(len(widths))]
        self.time = nn.Sequential(
            _linear(params.channels, 4 * params.channels), nn.SiLU(), _linear(4 * params.channels, 4 * params.channels)
        )
        self.first = _conv(image[0], params.channels, 3)
        kept, now = [params.channels], params.channels
        self.down, self.halving = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            stages = nn.ModuleList()
            for _ in range(params.blocks):
                stages.append(Stage(now, width, params, attends[level]))
                kept.append(now := width)
            self.down.append(stages)
            if level < len(widths) - 1:
                self.halving.append(_conv(width, width, 3, stride=2))
                kept.append(width)
        self.middle = nn.ModuleList([Stage(now, now, params, True), Stage(now, now, params, False)])
        self.up, self.doubling = nn.ModuleList(), nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            stages = nn.ModuleList()
            for _ in range(params.blocks + 1):
                stages.append(Stage(now + kept.pop(), width, params, attends[level]))
                now = width
            self.up.append(stages)
            if level:
                self.doubling.append(_conv(width, width, 3))
        self.last = nn.Sequential(_norm(now), nn.SiLU(), _conv(now, image[0], 3, gain=NOTHING))

    def packaged(self, samples: Mapping[str, Tensor]) -> tuple[nn.Module, Mapping[str, Tensor]]:
        """Itself, called with the time as well: whoever draws with it runs through all of them."""
        return self, {**samples, "time": torch.tensor([0, 1])}

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """x: (batch, channels, height, width), time: (batch,), the steps of noise in it, none where it is None.

        Returns the noise, as x.
        """
        steps = x.new_zeros(len(x)) if time is None else time
        embedded = self.time(embedding(steps, self.width).to(x.dtype))
        kept = [x := self.first(x)]
        for level, stages in enumerate(self.down):
            if level:
                kept.append(x := self.halving[level - 1](x))
            for stage in stages.children():
                kept.append(x := stage(x, embedded))
        for stage in self.middle:
            x = stage(x, embedded)
        for level, stages in enumerate(self.up):
            if level:
                x = self.doubling[level - 1](F.interpolate(x, scale_factor=2.0, mode="nearest"))
            for stage in stages.children():
                x = stage(torch.cat([x, kept.pop()], dim=1), embedded)
        noise: Tensor = self.last(x)
        return noise


def embedding(time: Tensor, width: int) -> Tensor:
    """time: (batch,); returns its sines and cosines (batch, width) at frequencies from 1 to 1/10,000."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half, device=time.device) * (-log(10000) / max(half - 1, 1)))
    angles = time.float()[:, None] * frequencies
    return F.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, width % 2))


def _norm(channels: int) -> nn.GroupNorm:
    """Of 32 groups as in the paper, or as many as divide the channels."""
    return nn.GroupNorm(next(count for count in range(min(32, channels), 0, -1) if channels % count == 0), channels)


def _conv(inputs: int, outputs: int, size: int, stride: int = 1, gain: float = 1.0) -> nn.Conv2d:
    return _started(nn.Conv2d(inputs, outputs, size, stride, padding=size // 2), gain)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    return _started(nn.Linear(inputs, outputs), 1.0)


def _started(layer: LayerT, gain: float) -> LayerT:
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def build(params: DdpmParams, info: DataInfo) -> Ddpm:
    """
    Raises:
        EpochalError: the picture cannot be halved as often.
    """
    return Ddpm(params, halved_image("ddpm", info, len(params.multipliers) - 1, fewer="multipliers"))


ENTRY = Architecture(
    summary="U-Net that finds the noise in a picture, to draw pictures by taking it away; for the task diffusion",
    source="Ho et al. 2020, Denoising diffusion probabilistic models, https://arxiv.org/abs/2006.11239",
    params=DdpmParams,
    build=build,
    example=DataInfo(input=Field((1, 16, 16)), target=Field((1, 16, 16))),
)
