"""DCGAN (Radford et al. 2016, https://arxiv.org/abs/1511.06434): a generator and a discriminator of convolutions.

Sizes are those of the official PyTorch tutorial: half the paper's channels, which are [128, 256, 512, 1024].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field as Bounds
from torch import Tensor, nn

from epochal.catalog.architectures.image import halved_image
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.entry import Architecture, Params


class DcganParams(Params):
    latent: Annotated[int, Bounds(ge=1)] = 100
    """Random numbers that a picture is made of."""
    channels: Annotated[list[Annotated[int, Bounds(ge=1)]], Bounds(min_length=1, max_length=10)] = [64, 128, 256, 512]
    """Of each level from the picture downwards, which halves its sides; of both parts."""
    norm: Literal["batch", "none"] = "batch"
    """Normalisation between convolutions: not after the generator's last, nor after the discriminator's first."""
    output: Literal["tanh", "sigmoid", "none"] = "tanh"
    """What bounds the generator's pixels: to -1 and 1, as the paper's, or to 0 and 1; as the data's are."""


class Dcgan(nn.Module):
    """``image`` is (channels, height, width), and has to be halved once for each of ``params.channels``."""

    def __init__(self, params: DcganParams, image: tuple[int, int, int]) -> None:
        super().__init__()
        self.latent = params.latent
        inputs, height, width = image
        smallest = (height >> len(params.channels), width >> len(params.channels))
        self.generator = _generator(params, inputs, smallest)
        self.discriminator = _discriminator(params, inputs, smallest)
        # Section 4 of the paper.
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)

    def generate(self, noise: Tensor) -> Tensor:
        """noise: (batch, latent); returns pictures (batch, channels, height, width)."""
        pictures: Tensor = self.generator(noise[:, :, None, None])
        return pictures

    def packaged(self, samples: Mapping[str, Tensor]) -> tuple[nn.Module, Mapping[str, Tensor]]:
        """What makes pictures of noise, and noise (2, latent)."""
        draws = nn.Sequential(nn.Unflatten(1, (self.latent, 1, 1)), self.generator)
        return draws, {"noise": torch.randn(2, self.latent, generator=torch.Generator().manual_seed(0))}

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, channels, height, width); returns (batch,): above zero where it is taken for real."""
        verdict: Tensor = self.discriminator(x)
        return verdict.flatten()


def _generator(params: DcganParams, outputs: int, smallest: tuple[int, int]) -> nn.Sequential:
    upwards = params.channels[::-1]
    biased = params.norm == "none"
    net = nn.Sequential(nn.ConvTranspose2d(params.latent, upwards[0], smallest, bias=biased))
    for before, after in zip(upwards, [*upwards[1:], outputs], strict=True):
        net.extend([*_norm(params, before), nn.ReLU()])
        net.append(nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=biased))
    bounds: dict[str, list[nn.Module]] = {"tanh": [nn.Tanh()], "sigmoid": [nn.Sigmoid()], "none": []}
    return net.extend(bounds[params.output])


def _discriminator(params: DcganParams, inputs: int, smallest: tuple[int, int]) -> nn.Sequential:
    biased = params.norm == "none"
    net = nn.Sequential()
    for level, (before, after) in enumerate(zip([inputs, *params.channels], params.channels, strict=False)):
        net.append(nn.Conv2d(before, after, 4, stride=2, padding=1, bias=biased))
        net.extend([*(_norm(params, after) if level else []), nn.LeakyReLU(0.2)])
    return net.append(nn.Conv2d(params.channels[-1], 1, smallest, bias=biased))


def _norm(params: DcganParams, channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels)] if params.norm == "batch" else []


def build(params: DcganParams, info: DataInfo) -> Dcgan:
    """
    Raises:
        EpochalError: the picture cannot be halved as often.
    """
    return Dcgan(params, halved_image("dcgan", info, len(params.channels), fewer="channels"))


ENTRY = Architecture(
    summary="A generator of pictures and a discriminator that tells them from real ones; for the task adversarial",
    source="Radford et al. 2016, Unsupervised representation learning with DCGANs, https://arxiv.org/abs/1511.06434",
    params=DcganParams,
    build=build,
    example=DataInfo(input=Field((3, 64, 64)), target=Field(())),
    own_outputs=True,
)
