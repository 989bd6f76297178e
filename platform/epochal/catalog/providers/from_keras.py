"""``keras/<module>:<function>``: a Keras model that a function of the user's own makes, on Keras' torch backend."""

from __future__ import annotations

import os
import random
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

    def __init__(self, model: nn.Module, shape: Sequence[int], last: bool, logarithm: bool) -> None:
        super().__init__()
        self.model = model
        self._shape = tuple(shape)
        self._last = last
        self._logarithm = logarithm

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, *info.input.shape); returns what the model does."""
        x = (x.movedim(1, -1) if self._last else x).reshape(len(x), *self._shape)
        outputs: Tensor = self.model(x, training=self.training)
        return outputs.clamp_min(torch.finfo(outputs.dtype).tiny).log() if self._logarithm else outputs


def _drawn(ordered: bool = True) -> Tensor:
    """The next seed, in the place of that of a Keras generator: those count, alike on every worker, and all would drop
    the same numbers. Torch's generator has a seed of its own on each, and goes on from a checkpoint."""
    return torch.randint(2**31, (2,), device="cpu")


def build(name: str, params: dict[str, Any], info: DataInfo) -> nn.Module:
    """
    Raises:
        CodeError: the function cannot be imported.
        EpochalError: it makes no Keras model, or one that takes other inputs.
    """
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    from epochal.catalog.build import import_object

    if (backend := keras.backend.backend()) != "torch":
        raise EpochalError(f"Keras runs on {backend} here, and has to run on torch", "set KERAS_BACKEND=torch")
    make = import_object(name, "model.name")
    given = {**params, **({"info": info} if "info" in signature(make).parameters else {})}
    keras.utils.clear_session(free_memory=False)  # layers are counted, and weights named by that
    random.seed(int(torch.randint(2**31, (), device="cpu")))  # Keras' generators are seeded by it, and its import draws
    readings = _readings(info.input.shape, keras.config.image_data_format() == "channels_last")
    with keras.device("cpu"):
        model = make(**given)
        if not isinstance(model, keras.Model):
            raise EpochalError(f"{name} made a {type(model).__name__}, and has to make a keras.Model")
        if not model.built:
            model.build((None, *readings[0][0]))
    if not hasattr(model, "input_shape"):
        told = f"{name} made a {type(model).__name__}, which does not say what inputs it takes"
        raise EpochalError(told, "make it by keras.Sequential, or by keras.Model(inputs, outputs)")
    takes = tuple(model.input_shape[1:])
    channels_last = next((last for shape, last in readings if shape == takes), None)
    if channels_last is None:
        raise EpochalError(f"{name} takes inputs {takes}, and the data's are {info.input.shape}")
    for layer in model._flatten_layers():
        for generator in layer._seed_generators:
            generator.next = _drawn
    last = model
    while getattr(last, "layers", None):  # a model may end in one of its own: keras.applications in a Sequential
        last = last.layers[-1]
    is_softmax = isinstance(last, keras.layers.Softmax)
    return OfKeras(
        model, takes, channels_last, is_softmax or getattr(last, "activation", None) is keras.activations.softmax
    )


def _readings(shape: tuple[int, ...], channels_last: bool) -> list[tuple[tuple[int, ...], bool]]:
    """The shapes an input can be given in, the one that Keras expects first, and whether channels come last then: an
    image has them as Keras is set, the other way, or not where there is one."""
    if len(shape) != 3:
        return [(shape, False)]
    channels, height, width = shape
    whole = sorted([(shape, False), ((height, width, channels), True)], key=lambda one: one[1] != channels_last)
    return [*whole, *([((height, width), False)] if channels == 1 else [])]
