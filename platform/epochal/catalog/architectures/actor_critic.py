"""Actor and critic of one body (Mnih et al. 2016, https://arxiv.org/abs/1602.01783): what to do, and its worth."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from pydantic import Field as Bounds
from torch import Tensor, nn

from epochal.catalog.architectures.activation import Activation
from epochal.catalog.architectures.observing import Convolution, layers
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.entry import Architecture, Params

_CONVOLUTIONS = (Convolution(16, 8, 4), Convolution(32, 4, 2))


class ActorCriticParams(Params):
    hidden: Annotated[list[Annotated[int, Bounds(ge=1)]], Bounds(max_length=100)] = [256]
    """Widths of the fully connected layers that both share: after the paper's two convolutions where an observation is
    an image (channels, height, width), else from the observation itself."""
    activation: Activation = "relu"
    """The nonlinearity after each of these layers."""


class Judged(NamedTuple):
    """What is said of observations."""

    policy: Tensor
    """(batch, actions): logits of the actions' probabilities."""
    value: Tensor
    """(batch,): the return that is expected."""


class ActorCritic(nn.Module):
    def __init__(self, params: ActorCriticParams, info: DataInfo) -> None:
        super().__init__()
        self.body, width = layers("actor-critic", info, _CONVOLUTIONS, params.hidden, params.activation)
        self.policy = nn.Linear(width, info.target.width)
        self.value = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Judged:
        """x: (batch, ...) observations."""
        features = self.body(x)
        return Judged(self.policy(features), self.value(features).squeeze(1))


def build(params: ActorCriticParams, info: DataInfo) -> ActorCritic:
    return ActorCritic(params, info)


ENTRY = Architecture(
    summary="A policy and the worth of what is seen, from shared layers; for the task reinforcement-learning",
    source="Mnih et al. 2016, Asynchronous methods for deep reinforcement learning, https://arxiv.org/abs/1602.01783",
    params=ActorCriticParams,
    build=build,
    example=DataInfo(Field((4, 84, 84)), Field((), torch.int64, classes=4)),
    own_outputs=True,
)
