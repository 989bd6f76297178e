"""U-Net (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597): a class, or a value, for each pixel.

Convolutions are padded, so that the output has the size of the image; the paper's are not.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field as Bounds
from torch import Tensor, nn
from torch.nn import functional as F

from epochal.catalog.architectures.image import halved_image
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.entry import Architecture, Params
from epochal.errors import EpochalError


class UnetParams(Params):
    channels: Annotated[list[Annotated[int, Bounds(ge=1)]], Bounds(min_length=2, max_length=12)] = [16, 32, 64]
    """Of each level from the image downwards; each halves it. The paper's: [64, 128, 256, 512, 1024]."""
    norm: Literal["none", "batch", "group"] = "none"
    """Normalisation after each convolution; `group` has 8 groups, or as many as divide the channels."""


class Double(nn.Sequential):
    """Two 3x3 convolutions, each with a norm and a ReLU."""

    def __init__(self, inputs: int, outputs: int, norm: str) -> None:
        layers: list[nn.Module] = []
        for before in (inputs, outputs):
            layers += [nn.Conv2d(before, outputs, 3, padding=1), *_norm(norm, outputs), nn.ReLU()]
        super().__init__(*layers)


def _norm(kind: str, channels: int) -> list[nn.Module]:
    if kind == "batch":
        return [nn.BatchNorm2d(channels)]
    groups = next(count for count in (8, 4, 2, 1) if channels % count == 0)
    return [nn.GroupNorm(groups, channels)] if kind == "group" else []


class Unet(nn.Module):
    """``outputs`` values a pixel, in the last dimension where ``last``, else in the second as an image has them."""

    def __init__(self, inputs: int, channels: list[int], outputs: int, norm: str, last: bool) -> None:
        super().__init__()
        self.last = last
        before = [inputs, *channels[:-1]]
        self.down = nn.ModuleList(Double(a, b, norm) for a, b in zip(before, channels, strict=True))
        upwards = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in upwards)
        self.merge = nn.ModuleList(Double(2 * b, b, norm) for _, b in upwards)
        self.head = nn.Conv2d(channels[0], outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, channels, height, width); returns (batch, height, width, outputs) or (batch, outputs, height,
        width)."""
        kept = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            kept.append(x)
        for up, merge, skip in zip(self.up, self.merge, reversed(kept[:-1]), strict=True):
            x = merge(torch.cat([skip, up(x)], dim=1))
        pixels: Tensor = self.head(x)
        return pixels.movedim(1, -1) if self.last else pixels


def build(params: UnetParams, info: DataInfo) -> Unet:
    """
    Raises:
        EpochalError: the image cannot be halved as often, or the target is not of its size.
    """
    inputs, height, width = halved_image("unet", info, len(params.channels) - 1, fewer="channels")
    target = info.target
    if target.shape[-2:] != (height, width):
        told = f"unet gives values for {height} x {width} pixels, and the target is {target.shape}"
        raise EpochalError(told, "for one class an image use cnn, resnet or vit")
    classes = target.classes is not None
    outputs = target.classes or (target.shape[0] if len(target.shape) == 3 else 1)
    return Unet(inputs, params.channels, outputs, params.norm, last=classes)


ENTRY = Architecture(
    summary="Down and up again with shortcuts: a class or a value for each pixel of an image",
    source="Ronneberger et al. 2015, U-Net, https://arxiv.org/abs/1505.04597",
    params=UnetParams,
    build=build,
    example=DataInfo(input=Field((3, 16, 16)), target=Field((16, 16), torch.int64, classes=4)),
)
