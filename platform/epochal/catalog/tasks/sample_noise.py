"""Random numbers that depend on a sample alone: the same for any number of workers, and in every validation."""

from __future__ import annotations

from math import pi, prod

import torch
from torch import Tensor

# Odd constants of splitmix64 (Steele et al. 2014, https://doi.org/10.1145/2714064.2660195), as signed numbers.
_GAMMA, _FIRST, _SECOND = (one - 2**64 for one in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def uniform_of(samples: Tensor, shape: tuple[int, ...], stream: int = 0) -> Tensor:
    """Numbers between 0 and 1, neither of them, (batch, *shape), for ``samples`` (batch, ...).

    Equal samples have equal numbers; another ``stream`` has others.
    """
    bits = samples.detach().float().flatten(1).contiguous().view(torch.int32).long()
    place = torch.arange(1, bits.shape[1] + 1, device=bits.device)
    key = _mixed(_mixed(bits + _GAMMA * place).sum(1) + stream)
    counter = torch.arange(1, prod(shape) + 1, device=bits.device)
    # The upper 24 bits, which a float32 holds exactly; with the half the greatest would become 1.
    mixed = (_mixed(key[:, None] + _GAMMA * counter) >> 40) & 0xFFFFFF
    return ((mixed + 0.5) / 2**24).clamp(max=1 - 2**-24).reshape(len(samples), *shape)


def normal_of(samples: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers (batch, *shape), by Box and Muller's transform (1958) of uniform ones."""
    radius = (-2 * uniform_of(samples, shape, 1).log()).sqrt()
    return radius * (2 * pi * uniform_of(samples, shape, 2)).cos()


def _mixed(bits: Tensor) -> Tensor:
    """The finaliser of splitmix64: every bit of the input changes half of the output's."""
    bits = (bits ^ _shifted(bits, 30)) * _FIRST
    bits = (bits ^ _shifted(bits, 27)) * _SECOND
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, count: int) -> Tensor:
    """To the right, with zeros from the left: torch has no unsigned shift."""
    return (bits >> count) & ((1 << (64 - count)) - 1)
