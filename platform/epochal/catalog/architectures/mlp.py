"""A multi-layer perceptron: fully connected layers over the flattened input."""

from __future__ import annotations

from math import prod
from typing import Annotated, Literal

from pydantic import Field as Bounds
from torch import Tensor, nn

from epochal.catalog.architectures.activation import Activation, activation
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.entry import Architecture, Params
from epochal.errors import EpochalError


class MlpParams(Params):
    hidden: Annotated[list[Annotated[int, Bounds(ge=1)]], Bounds(max_length=100)] = [128, 64]
    """Width of each hidden layer; an empty list is a linear model."""
    activation: Activation = "relu"
    """The nonlinearity after each hidden layer."""
    norm: Literal["none", "batch", "layer"] = "none"
    """Normalisation before each activation."""
    dropout: Annotated[float, Bounds(ge=0, lt=1)] = 0.0
    """Share of each hidden layer's outputs that training sets to zero."""


class Mlp(nn.Module):
    def __init__(self, params: MlpParams, inputs: int, outputs: int) -> None:
        super().__init__()
        widths = [inputs, *params.hidden]
        self.hidden = nn.Sequential(*(_layer(params, a, b) for a, b in zip(widths, params.hidden, strict=False)))
        self.head = nn.Linear(widths[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, ...) of real values; returns (batch, outputs)."""
        logits: Tensor = self.head(self.hidden(x.flatten(1)))
        return logits


def _layer(params: MlpParams, inputs: int, outputs: int) -> nn.Sequential:
    layer = nn.Sequential(nn.Linear(inputs, outputs))
    if params.norm != "none":
        layer.append(nn.BatchNorm1d(outputs) if params.norm == "batch" else nn.LayerNorm(outputs))
    layer.append(activation(params.activation))
    if params.dropout:
        layer.append(nn.Dropout(params.dropout))
    return layer


def build(params: MlpParams, info: DataInfo) -> Mlp:
    if not info.input.dtype.is_floating_point:
        raise EpochalError(
            "mlp takes real values, and this dataset's input is token ids", "use recurrent or transformer"
        )
    return Mlp(params, prod(info.input.shape), info.target.width)


ENTRY = Architecture(
    summary="Fully connected layers over the flattened input",
    source="Rumelhart, Hinton, Williams 1986, Learning representations by back-propagating errors",
    params=MlpParams,
    build=build,
    example=DataInfo(input=Field((13,)), target=Field((), classes=3)),
)
