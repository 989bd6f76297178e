"""Variational autoencoders (Kingma and Welling 2014, https://arxiv.org/abs/1312.6114) of fully connected layers."""

from __future__ import annotations

from torch import Tensor, nn

from epochal.catalog.architectures.autoencoder import AutoencoderParams, layers, real_size
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.entry import Architecture


class Vae(nn.Module):
    def __init__(self, params: AutoencoderParams, info: DataInfo) -> None:
        super().__init__()
        self.shape = info.input.shape
        inside = [real_size("vae", info), *params.hidden]
        self.encoder = layers([*inside, 2 * params.latent], params.activation)
        self.decoder = layers([params.latent, *inside[::-1]], params.activation)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (batch, ...); returns mean and logarithm of the variance of each latent number, both (batch, latent)."""
        mean, log_variance = self.encoder(x.flatten(1)).chunk(2, -1)
        return mean, log_variance

    def decode(self, latent: Tensor) -> Tensor:
        """latent: (batch, latent); returns (batch, ...) as the input."""
        made: Tensor = self.decoder(latent)
        return made.reshape(len(latent), *self.shape)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, ...); returns the same shape, made from the means."""
        return self.decode(self.encode(x)[0])


def build(params: AutoencoderParams, info: DataInfo) -> Vae:
    return Vae(params, info)


ENTRY = Architecture(
    summary="Autoencoder whose latent numbers are distributions, to draw new samples from; for the task variational",
    source="Kingma and Welling 2014, Auto-encoding variational Bayes, https://arxiv.org/abs/1312.6114",
    params=AutoencoderParams,
    build=build,
    example=DataInfo(input=Field((1, 8, 8)), target=Field((1, 8, 8))),
)
