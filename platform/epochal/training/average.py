"""Means of the weights over the steps, which often do better than the last ones: exponential, or equal over the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from epochal.catalog.schedules import steps_of
from epochal.spec.job import Average
from epochal.training.parallel import Strategy
from epochal.training.tensors import AVERAGE, local


class AveragedWeights:
    """The mean of a model's trained parameters, on each worker of its own part of them.

    Exponential moving average (Polyak and Juditsky 1992) or, of `kind: swa`, the mean of all since ``start`` (Izmailov
    et al. 2018, https://arxiv.org/abs/1803.05407). It begins with the weights after the first step that counts.
    """

    def __init__(self, strategy: Strategy, chosen: Average, total_steps: int) -> None:
        self._strategy = strategy
        self._parameters = {name: one for name, one in strategy.module.named_parameters() if one.requires_grad}
        self._kind, self._decay = chosen.kind, chosen.decay
        self._start = steps_of(chosen.start, total_steps) if chosen.start else 0
        if chosen.start < 1:  # of a few steps the last counts, whatever the fraction is rounded to
            self._start = min(self._start, total_steps - 1)
        self._means: dict[str, Tensor] = {}
        self.count = 0
        """Steps that are in it."""

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after ``step`` steps."""
        if step <= self._start:
            return
        self.count += 1
        if self.count == 1:
            self._means = {name: one.detach().clone() for name, one in self._parameters.items()}
            return
        # An equal mean of n is that of n - 1, moved by an nth of the way to the newest.
        share = 1 - self._decay if self._kind == "ema" else 1 / self.count
        torch._foreach_lerp_([*map(local, self._means.values())], [*map(local, self._parameters.values())], share)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the model has the mean weights, where there are some yet."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, shared in self._means.items():  # one by one: there may be no room for a third copy of them all
            own, mean = local(self._parameters[name]), local(shared)
            kept = own.clone()
            own.copy_(mean)
            mean.copy_(kept)
        self._strategy.reshard()

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {AVERAGE + name: mean for name, mean in self._means.items()}

    def room(self, count: int) -> dict[str, Tensor]:
        """What a checkpoint in which there are so many steps is to be read into."""
        self.count = count
        self._means = {name: torch.empty_like(one) for name, one in self._parameters.items()} if count else {}
        return self.tensors()

    def state(self) -> dict[str, Any]:
        return {"averaged": self.count}
