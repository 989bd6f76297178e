"""A small convolutional network in the manner of LeNet: convolutions and pooling, then fully connected layers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field as Bounds
from torch import Tensor, nn

from epochal.catalog.architectures.activation import Activation, activation
from epochal.catalog.architectures.image import image_shape
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.entry import Architecture, Params


class CnnParams(Params):
    channels: Annotated[list[Annotated[int, Bounds(ge=1)]], Bounds(min_length=1, max_length=100)] = [32, 64]
    """Output channels of each block: a convolution and an activation; each block halves the image."""
    pool: Literal["max", "avg", "stride"] = "max"
    """How: 2x2 pooling or a convolution of stride 2. Of two equal pixels, rounding decides which one `max` takes."""
    kernel_size: Literal[1, 3, 5, 7] = 3
    """Side of the convolutions; they are padded to keep the size."""
    hidden: Annotated[int, Bounds(ge=1)] | None = 128
    """Width of the fully connected layer before the last; null leaves it out."""
    activation: Activation = "relu"
    """The nonlinearity after each convolution and the hidden layer."""
    norm: Literal["none", "batch"] = "none"
    """Normalisation after each convolution."""
    dropout: Annotated[float, Bounds(ge=0, lt=1)] = 0.0
    """Share of the features that training sets to zero before each fully connected layer."""


class Cnn(nn.Module):
    def __init__(self, params: CnnParams, image: tuple[int, int, int], outputs: int) -> None:
        super().__init__()
        inputs, height, width = image
        self.features = nn.Sequential()
        for channels in params.channels:
            halved = min(height, width) >= 2
            self.features.append(_block(params, inputs, channels, halved))
            inputs, height, width = channels, _size(params, height, halved), _size(params, width, halved)
        self.head = _head(params, inputs * height * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, channels, height, width); returns (batch, outputs)."""
        logits: Tensor = self.head(self.features(x).flatten(1))
        return logits


def _block(params: CnnParams, inputs: int, outputs: int, halved: bool) -> nn.Sequential:
    stride = 2 if halved and params.pool == "stride" else 1
    block = nn.Sequential(nn.Conv2d(inputs, outputs, params.kernel_size, stride, padding=params.kernel_size // 2))
    if params.norm == "batch":
        block.append(nn.BatchNorm2d(outputs))
    block.append(activation(params.activation))
    if halved and params.pool != "stride":
        block.append(nn.MaxPool2d(2) if params.pool == "max" else nn.AvgPool2d(2))
    return block


def _size(params: CnnParams, size: int, halved: bool) -> int:
    """A side after a block: pooling drops an odd last pixel, a convolution of stride 2 keeps it."""
    if not halved:
        return size
    return (size + 1) // 2 if params.pool == "stride" else size // 2


def _head(params: CnnParams, inputs: int, outputs: int) -> nn.Sequential:
    head = nn.Sequential()
    for width in () if params.hidden is None else (params.hidden,):
        head.extend([*_dropout(params), nn.Linear(inputs, width), activation(params.activation)])
        inputs = width
    return head.extend([*_dropout(params), nn.Linear(inputs, outputs)])


def _dropout(params: CnnParams) -> list[nn.Module]:
    return [nn.Dropout(params.dropout)] if params.dropout else []


def build(params: CnnParams, info: DataInfo) -> Cnn:
    return Cnn(params, image_shape("cnn", info), info.target.width)


ENTRY = Architecture(
    summary="Convolution and pooling blocks, then fully connected layers, for small images",
    source="LeCun et al. 1998, Gradient-based learning applied to document recognition",
    params=CnnParams,
    build=build,
    example=DataInfo(input=Field((1, 8, 8)), target=Field((), classes=10)),
)
