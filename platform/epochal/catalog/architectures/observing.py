"""The layers between an observation and what a model says of it, in reinforcement learning."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from torch import nn

from epochal.catalog.architectures.activation import Activation, activation
from epochal.catalog.data import DataInfo
from epochal.errors import EpochalError


class Convolution(NamedTuple):
    channels: int
    size: int
    stride: int


def layers(
    name: str, info: DataInfo, convolutions: Sequence[Convolution], hidden: Sequence[int], kind: Activation
) -> tuple[nn.Sequential, int]:
    """Fully connected ones of the ``hidden`` widths, after the ``convolutions`` where an observation is an image
    (channels, height, width); and how many values they end in.

    Raises:
        EpochalError: the observation is not real, or too small an image; the target is no action.
    """
    field, made = info.input, nn.Sequential()
    if not field.dtype.is_floating_point or info.target.classes is None or info.target.shape:
        raise EpochalError(f"{name} needs real values as input, and an action as target: see the dataset gymnasium")
    inputs = prod(field.shape)
    if len(field.shape) == 3:
        before, height, width = field.shape
        least = 1
        for _, size, stride in reversed(convolutions):
            least = (least - 1) * stride + size
        if min(height, width) < least:
            told = f"{name} takes images (channels, height, width) of {least} pixels a side or more, and these are"
            raise EpochalError(f"{told} {field.shape}", "flatten them, or make them larger, in the environment")
        for after, size, stride in convolutions:
            made.extend([nn.Conv2d(before, after, size, stride), activation(kind)])
            before, height, width = after, (height - size) // stride + 1, (width - size) // stride + 1
        inputs = before * height * width
    made.append(nn.Flatten())
    for outputs in hidden:
        made.extend([nn.Linear(inputs, outputs), activation(kind)])
        inputs = outputs
    return made, inputs
