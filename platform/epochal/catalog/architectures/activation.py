"""The activation functions that a spec can name."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

Activation = Literal[
    "relu", "gelu", "silu", "swish", "tanh", "elu", "leaky_relu", "selu", "sigmoid", "softplus", "mish", "softmax",
    "linear",
]  # fmt: skip


class FeatureSoftmax(nn.Module):
    """Softmax over the features: the channels of images (batch, channels, height, width), else the last dimension."""

    def forward(self, x: Tensor) -> Tensor:
        return x.softmax(1 if x.dim() == 4 else -1)


_ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "selu": nn.SELU,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "mish": nn.Mish,
    "softmax": FeatureSoftmax,
    "linear": nn.Identity,
}


def activation(name: Activation) -> nn.Module:
    return _ACTIVATIONS[name]()
