"""Deep embedded clustering (Xie et al. 2016, https://arxiv.org/abs/1511.06335): an autoencoder and a centre for each
cluster among its latent numbers. The task `clustering` trains both, one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, NamedTuple

import torch
from pydantic import Field as Bounds
from torch import Tensor, nn
from torch.func import functional_call

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
    """Beside what is trained, buffers hold encoder and centres as they were when the targets were last taken."""

    def __init__(self, params: DecParams, values: int, clusters: int) -> None:
        super().__init__()
        widths = [values, *params.hidden, params.latent]
        self.encoder = layers(widths, params.activation)
        self.decoder = layers(widths[::-1], params.activation)
        self.centres = nn.Parameter(torch.randn(clusters, params.latent))
        for name, one in self._followed():
            self.register_buffer(_target(name), one.detach().clone())
        self.register_buffer("sizes", torch.ones(clusters))
        self.register_buffer("clustered", torch.zeros(1))
        self.sizes: Tensor
        """(clusters,): the sum of all samples' shares in each, by what the buffers hold."""
        self.clustered: Tensor
        """(1,): 1 once the centres have been placed, 0 before."""

    def forward(self, x: Tensor) -> Clustered:
        """x: (batch, ...) of real values."""
        latent = self.encoder(x.flatten(1))
        return Clustered(_shares(latent, self.centres), self.decoder(latent).reshape(x.shape))

    def targets(self, x: Tensor) -> Tensor:
        """The shares to aim at, (batch, clusters): those of what the buffers hold, squared over the clusters' sizes."""
        shares = self.followed_shares(x).square() / self.sizes
        return shares / shares.sum(dim=1, keepdim=True)

    def followed_shares(self, x: Tensor) -> Tensor:
        """(batch, clusters), by what the buffers hold."""
        held = {name: self.get_buffer(_target(f"encoder.{name}")) for name, _ in self.encoder.named_parameters()}
        return _shares(functional_call(self.encoder, held, (x.flatten(1),)), self.get_buffer(_target("centres")))

    @torch.no_grad()
    def follow(self) -> None:
        """Put what is trained into the buffers."""
        for name, one in self._followed():
            self.get_buffer(_target(name)).copy_(one)

    def _followed(self) -> Iterator[tuple[str, Tensor]]:
        yield "centres", self.centres
        for name, one in self.encoder.named_parameters():
            yield f"encoder.{name}", one


def _target(name: str) -> str:
    return f"target_{name.replace('.', '_')}"


def _shares(latent: Tensor, centres: Tensor) -> Tensor:
    """By Student's t distribution around each centre."""
    # Equation 1, with the one degree of freedom that section 3.1.1 gives it: nothing there could be fitted by.
    near = 1 / (1 + (latent[:, None] - centres).square().sum(dim=-1))
    return near / near.sum(dim=1, keepdim=True)


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
