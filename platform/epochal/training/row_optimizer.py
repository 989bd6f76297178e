"""One of torch's optimizers for the models of a pack, whose parameters are the rows of a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn, optim
from torch.optim import Optimizer

_PROPORTIONAL = (
    optim.SGD, optim.Adam, optim.AdamW, optim.NAdam, optim.RAdam, optim.Adamax, optim.Adagrad, optim.Adadelta,
    optim.RMSprop,
)  # fmt: skip
"""Those whose change of a parameter is the learning rate times something that does not depend on it."""


class Slot(NamedTuple):
    """Where a parameter lies in a row."""

    low: int
    high: int
    shape: torch.Size


def slots_of(parameters: Sequence[Tensor]) -> list[Slot]:
    """Of parameters that lie one after the other."""
    slots, low = [], 0
    for parameter in parameters:
        slots.append(Slot(low, low + parameter.numel(), parameter.shape))
        low += parameter.numel()
    return slots


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """A row of them."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def part_of(row: Tensor, slot: Slot) -> Tensor:
    """A parameter, as a view."""
    return row[slot.low : slot.high].view(slot.shape)


class RowOptimizer:
    """Changes the ``rows`` by the ``gradients`` (members, values), as each member's own optimizer would.

    Torch's optimizers have one learning rate a group, and their work for a group takes longer than the arithmetic of a
    small model. So members that differ in learning rate and weight decay alone are one group: torch changes zeros at a
    learning rate of 1, and the rows get that times their own.
    """

    def __init__(
        self,
        optimizers: Sequence[Optimizer],
        parameters: Sequence[Sequence[Tensor]],
        rows: Tensor,
        gradients: Tensor,
    ) -> None:
        self._rows, self._gradients, self._parameters = rows, gradients, parameters
        self._slots = slots_of(parameters[0])
        settings = [optimizer.param_groups[0] for optimizer in optimizers]
        made: Any = type(optimizers[0])
        self._together = made in _PROPORTIONAL
        self._changed = torch.zeros_like(rows) if self._together else rows
        self._own = [nn.Parameter(row) for row in self._changed]
        groups: dict[str, dict[str, Any]] = {}
        for member, (own, setting) in enumerate(zip(self._own, settings, strict=True)):
            own.grad = gradients[member]
            alike = {**setting, "params": []} | ({"lr": 1.0, "weight_decay": 0.0} if self._together else {})
            key = str(sorted(alike.items())) if self._together else str(member)
            groups.setdefault(key, alike)["params"].append(own)
        self._optimizer: Optimizer = made(list(groups.values()))
        for own, optimizer, tensors in zip(self._own, optimizers, parameters, strict=True):
            if state := _joined_state(optimizer, tensors):
                self._optimizer.state[own] = state
        apart = [bool(one.get("decoupled_weight_decay")) for one in settings]
        decays = [one.get("weight_decay", 0.0) for one in settings]
        self._decays = rows.new_tensor([0.0 if own else one for one, own in zip(decays, apart, strict=True)])[:, None]
        self._shrinks = rows.new_tensor([one if own else 0.0 for one, own in zip(decays, apart, strict=True)])[:, None]
        self._any_decays, self._any_shrinks = bool(self._decays.any()), bool(self._shrinks.any())

    @torch.no_grad()
    def step(self, rates: Sequence[float]) -> None:
        """``rates``: every member's learning rate. The gradients may be others afterwards."""
        if not self._together:
            for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
            self._optimizer.step()
            return
        factors = self._rows.new_tensor(rates)[:, None]
        if self._any_decays:
            self._gradients.addcmul_(self._rows, self._decays)
        self._changed.zero_()
        self._optimizer.step()
        if self._any_shrinks:
            self._rows.mul_(1 - factors * self._shrinks)
        self._rows.addcmul_(self._changed, factors)

    def settle(self, member: int, optimizer: Optimizer) -> None:
        """Give a member's own optimizer its state: of each parameter its own, for it counts its steps by itself."""
        own = self._own[member]
        if (state := self._optimizer.state.get(own)) is None:
            return
        for parameter, slot in zip(self._parameters[member], self._slots, strict=True):
            optimizer.state[parameter] = {key: _settled(value, own, slot) for key, value in state.items()}


def _joined_state(optimizer: Optimizer, parameters: Sequence[Tensor]) -> dict[str, Any]:
    """What a member's optimizer knows of its parameters, as of one row."""
    known = [(parameter, optimizer.state.get(parameter, {})) for parameter in parameters]
    found = {}
    for key, value in known[0][1].items():
        if all(isinstance(state[key], Tensor) and state[key].shape == parameter.shape for parameter, state in known):
            found[key] = joined([state[key] for _, state in known])
        else:
            found[key] = value
    return found


def _settled(value: Any, row: Tensor, slot: Slot) -> Any:
    if not isinstance(value, Tensor):
        return value
    return part_of(value, slot) if value.shape == row.shape else value.clone()
