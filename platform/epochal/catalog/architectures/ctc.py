"""Convolutions and recurrent layers over frames of sound, as Deep Speech 2 (Amodei et al. 2016), for CTC."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field as Bounds
from torch import Tensor, nn

from epochal.catalog.data import DataInfo, Field
from epochal.catalog.entry import Architecture, Params
from epochal.errors import EpochalError

STRIDE = 2
"""Frames that go in for each that comes out."""


class CtcParams(Params):
    channels: Annotated[int, Bounds(ge=1)] = 64
    """Channels of the two convolutions."""
    kernel: Annotated[int, Bounds(ge=1, le=101)] = 5
    """Frames that a convolution sees; an odd number."""
    hidden: Annotated[int, Bounds(ge=1)] = 64
    """Width of the recurrent layers' state, in each direction."""
    layers: Annotated[int, Bounds(ge=1, le=20)] = 2
    """Recurrent layers (GRU), each read forwards and backwards."""
    dropout: Annotated[float, Bounds(ge=0, lt=1)] = 0.0
    """Share of each recurrent layer's outputs that training sets to zero."""


class Bidirectional(nn.Module):
    """A GRU forwards and one backwards, from where each sequence ends: padding is seen by neither before it."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.forwards = nn.GRU(width, hidden, batch_first=True)
        self.backwards = nn.GRU(width, hidden, batch_first=True)

    def forward(self, x: Tensor, turned: Tensor) -> Tensor:
        """x: (batch, time, width); ``turned``: (batch, time, 1), where each place is read backwards. Returns
        (batch, time, 2 * hidden)."""
        # Not `take_along_dim`: `torch.export` takes that for one size of batch alone.
        backwards, _ = self.backwards(x.gather(1, turned.expand_as(x)))
        backwards = backwards.gather(1, turned.expand_as(backwards))
        return torch.cat([self.forwards(x)[0], backwards], dim=-1)


class Ctc(nn.Module):
    def __init__(self, params: CtcParams, mels: int, outputs: int) -> None:
        super().__init__()
        half = params.kernel // 2
        self.convolutions = nn.Sequential(
            nn.Conv1d(mels, params.channels, params.kernel, STRIDE, half),
            nn.ReLU(),
            nn.Conv1d(params.channels, params.channels, params.kernel, 1, half),
            nn.ReLU(),
        )
        widths = [params.channels, *[2 * params.hidden] * (params.layers - 1)]
        self.layers = nn.ModuleList(Bidirectional(width, params.hidden) for width in widths)
        self.norms = nn.ModuleList(nn.LayerNorm(2 * params.hidden) for _ in widths)
        self.dropout = nn.Dropout(params.dropout)
        self.head = nn.Linear(2 * params.hidden, outputs)

    def forward(self, x: Tensor, length: Tensor) -> Tensor:
        """x: (batch, frames, mels), of which ``length`` (batch,) count; returns (batch, frames / 2, outputs)."""
        first, nonlinearity, second, _ = self.convolutions
        x = nonlinearity(first(x.transpose(1, 2)))
        places = torch.arange(x.shape[2], device=x.device)
        ends = ((length + STRIDE - 1) // STRIDE)[:, None]
        # What the first makes of padding is not zero, and the second would hear it before the end of the sound.
        x = nonlinearity(second(x * (places < ends)[:, None])).transpose(1, 2)
        turned = torch.where(places < ends, ends - 1 - places, places)[..., None]
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = self.dropout(norm(layer(x, turned)))
        logits: Tensor = self.head(x)
        return logits


def build(params: CtcParams, info: DataInfo) -> Ctc:
    field = info.input
    if info.inputs != ("input", "length") or not field.dtype.is_floating_point or len(field.shape) != 2:
        told = f"ctc takes frames (time, mels) and their length, and this data's inputs are {', '.join(info.inputs)}"
        raise EpochalError(told, "use the dataset tones, or wav-folder for recordings of yours")
    if params.kernel % 2 == 0:
        raise EpochalError(f"ctc: kernel is {params.kernel}, expected an odd number")
    return Ctc(params, field.shape[1], info.target.width)


ENTRY = Architecture(
    summary="Convolutions and bidirectional GRUs over frames of sound, read out at each of them, for CTC",
    source="Amodei et al. 2016, Deep Speech 2, https://arxiv.org/abs/1512.02595",
    params=CtcParams,
    build=build,
    example=DataInfo(
        Field((20, 8)),
        Field((4,), torch.int64, classes=6),
        {"length": Field((), torch.int64, 21), "target_length": Field((), torch.int64, 5)},
        inputs=("input", "length"),
    ),
    own_outputs=True,
)
