"""Forecasts of several steps: by an LSTM that goes on by itself, or a transformer that says all steps at once.

What both see and say is the distance from the window's last step, as in NLinear (Zeng et al. 2023,
https://arxiv.org/abs/2205.13504), so that a level never seen before is no obstacle.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field as Bounds
from torch import Tensor, nn

from epochal.catalog.architectures.sequence import learned_positions
from epochal.catalog.architectures.transformer import Layer, TransformerParams
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.entry import Architecture, Params
from epochal.errors import EpochalError


class ForecasterParams(Params):
    cell: Literal["lstm", "transformer"] = "lstm"
    """lstm: reads the window, and goes on step by step from what it said; transformer: says all steps in one pass."""
    width: Annotated[int, Bounds(ge=1)] = 64
    """Width of every vector; for a transformer a multiple of `heads`."""
    layers: Annotated[int, Bounds(ge=1, le=100)] = 1
    """Layers of the LSTM's two halves each, or of the transformer."""
    heads: Annotated[int, Bounds(ge=1)] = 4
    """Attention heads of a layer of the transformer."""
    dropout: Annotated[float, Bounds(ge=0, lt=1)] = 0.0
    """Share of the outputs of each part, or between the LSTM's layers, that training sets to zero."""


class LstmForecaster(nn.Module):
    """Encoder and decoder (Sutskever et al. 2014, https://arxiv.org/abs/1409.3215), of numbers in place of words."""

    def __init__(self, params: ForecasterParams, features: int, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon
        dropout = params.dropout if params.layers > 1 else 0.0
        self.encoder = nn.LSTM(features, params.width, params.layers, batch_first=True, dropout=dropout)
        self.decoder = nn.LSTM(1, params.width, params.layers, batch_first=True, dropout=dropout)
        self.head = nn.Linear(params.width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, window, features); returns (batch, horizon)."""
        _, state = self.encoder(x)
        step, said = x[:, -1:, :1], []
        for _ in range(self.horizon):
            out, state = self.decoder(step, state)
            step = self.head(out)
            said.append(step)
        return torch.cat(said, dim=1).squeeze(-1)


class TransformerForecaster(nn.Module):
    """An encoder over the window and a placeholder for each step to come (after Zhou et al. 2021, Informer)."""

    def __init__(self, params: ForecasterParams, window: int, features: int, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon
        shape = TransformerParams(width=params.width, heads=params.heads, dropout=params.dropout)
        self.projection = nn.Linear(features, params.width)
        self.positions = learned_positions(window + horizon, params.width)
        self.layers = nn.Sequential(*(Layer(shape) for _ in range(params.layers)))
        self.norm = nn.LayerNorm(params.width)
        self.head = nn.Linear(params.width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, window, features); returns (batch, horizon)."""
        seen = self.projection(x)
        to_come = seen.new_zeros(len(x), self.horizon, seen.shape[2])
        encoded = self.layers(torch.cat([seen, to_come], dim=1) + self.positions)
        said: Tensor = self.head(self.norm(encoded[:, -self.horizon :])).squeeze(-1)
        return said


class Forecaster(nn.Module):
    def __init__(self, params: ForecasterParams, shape: tuple[int, ...], horizon: int) -> None:
        super().__init__()
        window, features = shape[0], shape[1] if len(shape) > 1 else 1
        self.steps: nn.Module = (
            LstmForecaster(params, features, horizon)
            if params.cell == "lstm"
            else TransformerForecaster(params, window, features, horizon)
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, window, features) or (batch, window); returns the first feature to come, (batch, horizon)."""
        x = x.unsqueeze(-1) if x.dim() == 2 else x
        # A distance from the last step is about the same size wherever the level of the series has gone by then.
        last = x[:, -1:]
        said: Tensor = self.steps(x - last) + last[..., 0]
        return said


def build(params: ForecasterParams, info: DataInfo) -> Forecaster:
    field = info.input
    if not field.dtype.is_floating_point or len(field.shape) not in (1, 2) or len(info.target.shape) != 1:
        told = f"forecaster takes a window (time, features) of real values, and this data's input is {field.shape}"
        raise EpochalError(told, "use the dataset series, of a table of yours, or air-passengers")
    if params.cell == "transformer" and params.width % params.heads:
        raise EpochalError(f"forecaster: width {params.width} is not a multiple of heads {params.heads}")
    return Forecaster(params, field.shape, info.target.shape[0])


ENTRY = Architecture(
    summary="LSTM or transformer that forecasts several steps of a series",
    source="Sutskever et al. 2014, https://arxiv.org/abs/1409.3215; Zeng et al. 2023, https://arxiv.org/abs/2205.13504",
    params=ForecasterParams,
    build=build,
    example=DataInfo(input=Field((24, 3)), target=Field((6,))),
)
