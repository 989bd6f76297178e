"""``keras/<module>:<function>``: a Keras model that a function of the user's own makes, on Keras' torch backend.

Keras seeds its generators by Python's ``random``, which every training seeds.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from epochal.catalog.data import DataInfo
from epochal.errors import EpochalError


class OfKeras(nn.Module):
    """A Keras model, called as a torch module is.

    Images are given as the model takes them, channels last or without. Where it ends in a softmax, what is given is the
    logarithm of that: losses of class numbers take it as they take the outputs before a softmax.
    """

    def __init__(self, model: nn.Module, shape: Sequence[int], logarithm: bool) -> None:
        super().__init__()
        self.model = model
        self._shape = tuple(shape)
        self._logarithm = logarithm

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, *info.input.shape); returns what the model does."""
        if x.shape[1:] != self._shape:
            x = (x.movedim(1, -1) if x.dim() > 2 else x).reshape(len(x), *self._shape)
        outputs: Tensor = self.model(x, training=self.training)
        return outputs.clamp_min(torch.finfo(outputs.dtype).tiny).log() if self._logarithm else outputs


def build(name: str, params: dict[str, Any], info: DataInfo) -> nn.Module:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    from epochal.catalog.build import import_object

    if (backend := keras.backend.backend()) != "torch":
        raise EpochalError(f"Keras runs on {backend} here, and has to run on torch", "set KERAS_BACKEND=torch")
    make = import_object(name, "model.name")
    given = {**params, **({"info": info} if "info" in signature(make).parameters else {})}
    with keras.device("cpu"):
        model = make(**given)
        if not isinstance(model, keras.Model):
            raise EpochalError(f"{name} made a {type(model).__name__}, and has to make a keras.Model")
        if not model.built:
            model.build((None, *info.input.shape))
    takes = tuple(model.input_shape[1:])
    if takes not in _readings(info.input.shape):
        raise EpochalError(f"{name} takes inputs {takes}, and the data's are {info.input.shape}")
    last = model.layers[-1]
    is_softmax = isinstance(last, keras.layers.Softmax)
    return OfKeras(model, takes, is_softmax or getattr(last, "activation", None) is keras.activations.softmax)


def _readings(shape: tuple[int, ...]) -> set[tuple[int, ...]]:
    """The shapes an input can be given in: its own, an image with channels last, or without its one channel."""
    if len(shape) != 3:
        return {shape}
    channels, height, width = shape
    return {shape, (height, width, channels), *([(height, width)] if channels == 1 else [])}
