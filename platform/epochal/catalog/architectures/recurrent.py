"""Recurrent networks: a plain RNN, an LSTM or a GRU over a sequence; the last state is read out."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field as Bounds
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from epochal.catalog.architectures.sequence import not_padding, refuse_padding, sequence
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.entry import Architecture, Params

_CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class RecurrentParams(Params):
    cell: Literal["rnn", "lstm", "gru"] = "lstm"
    """The recurrent cell."""
    hidden: Annotated[int, Bounds(ge=1)] = 128
    """Width of the state, in each direction."""
    layers: Annotated[int, Bounds(ge=1, le=100)] = 1
    """Recurrent layers, one above the other."""
    bidirectional: bool = False
    """Read the sequence backwards too."""
    embedding: Annotated[int, Bounds(ge=1)] = 64
    """Width of the token vectors, where the input is token ids."""
    dropout: Annotated[float, Bounds(ge=0, lt=1)] = 0.0
    """Share of the outputs between layers that training sets to zero; needs two layers."""
    padding: Annotated[int, Bounds(ge=0)] | None = None
    """Token id that stands where a sequence has ended, and is not read; null: there is none."""


class Recurrent(nn.Module):
    def __init__(self, params: RecurrentParams, info: DataInfo) -> None:
        super().__init__()
        self.padding = params.padding
        self.steps = sequence(info.input, params.embedding)
        self.cell: nn.RNNBase = _CELLS[params.cell](
            self.steps.width,
            params.hidden,
            num_layers=params.layers,
            batch_first=True,
            bidirectional=params.bidirectional,
            dropout=params.dropout if params.layers > 1 else 0.0,
        )
        self.head = nn.Linear(params.hidden * (2 if params.bidirectional else 1), info.target.width)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, time, features), or (batch, time) token ids; returns (batch, outputs)."""
        steps = self.steps(x)
        counts = not_padding(x, self.padding)
        if counts is not None and len(x) and not x.is_meta:  # there is nothing to pack, or nothing to see
            ends = (counts * torch.arange(1, x.shape[1] + 1, device=x.device)).amax(1)
            steps = pack_padded_sequence(steps, ends.cpu(), batch_first=True, enforce_sorted=False)
        _, state = self.cell(steps)
        hidden: Tensor = state[0] if isinstance(state, tuple) else state  # (layers * directions, batch, hidden)
        # Of the last layer: its state forwards, and after it that backwards, which has read the sequence to its begin.
        directions = 2 if self.cell.bidirectional else 1
        logits: Tensor = self.head(hidden[-directions:].transpose(0, 1).flatten(1))
        return logits


def build(params: RecurrentParams, info: DataInfo) -> Recurrent:
    refuse_padding("recurrent", params.padding, info)
    return Recurrent(params, info)


ENTRY = Architecture(
    summary="RNN, LSTM or GRU over a sequence of vectors, token ids, or the rows of an image",
    source="Hochreiter, Schmidhuber 1997, Long short-term memory; Cho et al. 2014, https://arxiv.org/abs/1406.1078",
    params=RecurrentParams,
    build=build,
    example=DataInfo(input=Field((12, 4)), target=Field((), classes=5)),
)
