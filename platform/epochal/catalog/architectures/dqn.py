"""Deep Q-network (Mnih et al. 2015, https://doi.org/10.1038/nature14236): what each action is worth."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field as Bounds
from torch import Tensor, nn
from torch.func import functional_call

from epochal.catalog.architectures.activation import Activation
from epochal.catalog.architectures.observing import Convolution, layers
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.entry import Architecture, Params

_CONVOLUTIONS = (Convolution(32, 8, 4), Convolution(64, 4, 2), Convolution(64, 3, 1))


class DqnParams(Params):
    hidden: Annotated[list[Annotated[int, Bounds(ge=1)]], Bounds(max_length=100)] = [512]
    """Widths of the fully connected layers: after the paper's three convolutions where an observation is an image
    (channels, height, width), else from the observation itself."""
    activation: Activation = "relu"
    """The nonlinearity after each layer but the last."""


class Dqn(nn.Module):
    """The online network, whose parameters are trained, and a copy of it as it was, in buffers: the target network."""

    def __init__(self, params: DqnParams, info: DataInfo) -> None:
        super().__init__()
        self.online, width = layers("dqn", info, _CONVOLUTIONS, params.hidden, params.activation)
        self.online.append(nn.Linear(width, info.target.width))
        for name, one in self.online.named_parameters():
            self.register_buffer(_target(name), one.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, ...) observations; returns (batch, actions)."""
        values: Tensor = self.online(x)
        return values

    def target_values(self, x: Tensor) -> Tensor:
        """As ``forward``, by the target network."""
        held = {name: self.get_buffer(_target(name)) for name, _ in self.online.named_parameters()}
        values: Tensor = functional_call(self.online, held, (x,))
        return values

    @torch.no_grad()
    def follow(self) -> None:
        """Make the target network the online one."""
        for name, one in self.online.named_parameters():
            self.get_buffer(_target(name)).copy_(one)


def _target(name: str) -> str:
    return f"target_{name.replace('.', '_')}"


def build(params: DqnParams, info: DataInfo) -> Dqn:
    return Dqn(params, info)


ENTRY = Architecture(
    summary="Deep Q-network: what each action is worth, with a target network; for the task reinforcement-learning",
    source="Mnih et al. 2015, Human-level control through deep reinforcement learning, doi:10.1038/nature14236",
    params=DqnParams,
    build=build,
    example=DataInfo(Field((4, 84, 84)), Field((), torch.int64, classes=4)),
)
