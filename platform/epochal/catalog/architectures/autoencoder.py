"""Autoencoders (Hinton and Salakhutdinov 2006): down to a few numbers, and from these what went in again."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Annotated

from pydantic import Field as Bounds
from torch import Tensor, nn

from epochal.catalog.architectures.activation import Activation, activation
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.entry import Architecture, Params
from epochal.errors import EpochalError


class AutoencoderParams(Params):
    hidden: Annotated[list[Annotated[int, Bounds(ge=1)]], Bounds(max_length=100)] = [128, 64]
    """Widths of the encoder's layers before the last; the decoder has them in reverse."""
    latent: Annotated[int, Bounds(ge=1)] = 16
    """Numbers that a sample is reduced to."""
    activation: Activation = "relu"
    """The nonlinearity between layers."""


def layers(widths: list[int], kind: Activation) -> nn.Sequential:
    """Fully connected, of these widths, with a nonlinearity between them."""
    made = nn.Sequential()
    for inputs, outputs in pairwise(widths):
        made.extend([*([activation(kind)] if len(made) else []), nn.Linear(inputs, outputs)])
    return made


def real_size(architecture: str, info: DataInfo) -> int:
    """How many values a sample of the input has.

    Raises:
        EpochalError: they are not real.
    """
    if not info.input.dtype.is_floating_point:
        raise EpochalError(f"{architecture} takes real values, and this dataset's input is token ids")
    return prod(info.input.shape)


class Autoencoder(nn.Module):
    def __init__(self, params: AutoencoderParams, info: DataInfo) -> None:
        super().__init__()
        widths = [real_size("autoencoder", info), *params.hidden, params.latent]
        self.encoder = layers(widths, params.activation)
        self.decoder = layers(widths[::-1], params.activation)

    def encode(self, x: Tensor) -> Tensor:
        """x: (batch, ...); returns (batch, latent)."""
        latent: Tensor = self.encoder(x.flatten(1))
        return latent

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, ...) of real values; returns the same shape."""
        made: Tensor = self.decoder(self.encode(x))
        return made.reshape(x.shape)


def build(params: AutoencoderParams, info: DataInfo) -> Autoencoder:
    return Autoencoder(params, info)


ENTRY = Architecture(
    summary="Reduces a sample to a few numbers, and makes it from them again",
    source="Hinton and Salakhutdinov 2006, Reducing the dimensionality of data with neural networks",
    params=AutoencoderParams,
    build=build,
    example=DataInfo(input=Field((1, 8, 8)), target=Field((1, 8, 8))),
)
