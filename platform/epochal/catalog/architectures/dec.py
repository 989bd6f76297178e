"""Deep embedded clustering (Xie et al. 2016, https://arxiv.org/abs/1511.06335): an autoencoder and a centre for each
cluster among its latent numbers. The task `clustering` starts and trains it.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from pydantic import Field as Bounds
from torch import Tensor, nn

from epochal.catalog.architectures.activation import Activation
from epochal.catalog.architectures.autoencoder import layers, real_size
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.entry import Architecture, Params
from epochal.errors import EpochalError


class DecParams(Params):
    hidden: Annotated[list[Annotated[int, Bounds(ge=1)]], Bounds(max_length=100)] = [128, 64]
    """Widths of the encoder's layers before the last; the decoder has them in reverse. The paper's: 500, 500, 2000."""
    latent: Annotated[int, Bounds(ge=1)] = 10
    """Numbers that a sample is reduced to, and among which the clusters are."""
    activation: Activation = "relu"
    """The nonlinearity between layers."""


class Clustered(NamedTuple):
    """What is said of a batch."""

    shares: Tensor
    """(batch, clusters): how much each cluster has of a sample; a sample's add up to 1."""
    made: Tensor
    """The input again, in its shape."""


class Dec(nn.Module):
    def __init__(self, params: DecParams, values: int, clusters: int) -> None:
        super().__init__()
        widths = [values, *params.hidden, params.latent]
        self.encoder = layers(widths, params.activation)
        self.decoder = layers(widths[::-1], params.activation)
        self.centres = nn.Parameter(torch.randn(clusters, params.latent))
        self.register_buffer("sizes", torch.full((clusters,), 1 / clusters))
        self.sizes: Tensor
        """(clusters,): which share of all samples each had when the clusters were started."""

    def forward(self, x: Tensor) -> Clustered:
        """x: (batch, ...) of real values. Shares are by Student's t distribution around each centre."""
        latent = self.encoder(x.flatten(1))
        near = 1 / (1 + (latent[:, None] - self.centres).square().sum(dim=-1))
        return Clustered(near / near.sum(dim=1, keepdim=True), self.decoder(latent).reshape(x.shape))


def build(params: DecParams, info: DataInfo) -> Dec:
    """
    Raises:
        EpochalError: the input is not real, or there is no class a sample that the clusters are compared with.
    """
    if info.target.classes is None or info.target.shape != ():
        raise EpochalError("dec needs a class a sample as target: as many clusters are sought, and compared with them")
    return Dec(params, real_size("dec", info), info.target.classes)


ENTRY = Architecture(
    summary="Deep embedded clustering: an autoencoder with a centre for each cluster, for the task clustering",
    source="Xie et al. 2016, Unsupervised deep embedding for clustering analysis, https://arxiv.org/abs/1511.06335",
    params=DecParams,
    build=build,
    example=DataInfo(Field((1, 8, 8)), Field((), torch.int64, classes=10)),
    own_outputs=True,
)
