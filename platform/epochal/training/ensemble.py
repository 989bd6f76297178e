"""Models of one architecture that train as one: a step of all of them is one forward and one backward pass.

After Wang et al., Horizontally Fused Training Array, MLSys 2021 (https://arxiv.org/abs/2102.02344). The forward pass
is ``torch.func.vmap`` over the members. No member's loss depends on another's weights, so the gradient of their sum is
each one's own: the backward pass is autograd's, which takes less time than ``vmap`` of ``grad``.

The trained parameters of a member are one row of a matrix. Its model's parameters are views of that row, and its
optimizer's state is one of the row's: what is saved, validated or exported of a member is as if it trained alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from epochal.catalog.data import Batch
from epochal.catalog.task import TakesScalars, Task
from epochal.training.loader import split_evenly
from epochal.training.row_optimizer import RowOptimizer, Slot, joined, part_of, slots_of
from epochal.training.sampler import micro_batches, part
from epochal.training.step import Gradients, Stepper, loss_of

_Place = tuple[dict[str, Any], str]
"""Where a module keeps a parameter or buffer: its table, and the name in that."""


class Ensemble:
    """Steps of several members at once; the parameters called ``names`` are trained. The members' models see nothing of
    it before ``bind``."""

    def __init__(self, steppers: Sequence[Stepper], names: Sequence[str]) -> None:
        first = steppers[0]
        self._steppers = steppers
        self._micro_batch_size = first.micro_batch_size
        self._model = first.strategy.module
        self._task = first.task
        modules = [stepper.strategy.module for stepper in steppers]
        self._parameters = [[dict(module.named_parameters())[name] for name in names] for module in modules]
        self._slots = slots_of(self._parameters[0])
        self._rows = torch.stack([joined(parameters) for parameters in self._parameters])
        self._gradients = torch.zeros_like(self._rows)
        self._trained = [_column(self._rows, slot).detach().requires_grad_() for slot in self._slots]
        fixed = _differing(modules, names)
        self._places = _places(self._model, [*names, *fixed])
        self._fixed = list(fixed.values())
        self._scalars = _scalars([stepper.task for stepper in steppers], self._rows.device)
        limits = [stepper.limit for stepper in steppers]
        self.clips = [limit is not None for limit in limits]
        self._limits = self._rows.new_tensor([torch.inf if limit is None else limit for limit in limits])
        optimizers = [stepper.optimizer for stepper in steppers]
        self._optimizer = RowOptimizer(optimizers, self._parameters, self._rows, self._gradients)

    def bind(self) -> None:
        """From now on the members' models share memory with this, and see every step."""
        for parameters, row in zip(self._parameters, self._rows, strict=True):
            for parameter, slot in zip(parameters, self._slots, strict=True):
                parameter.data = part_of(row, slot)

    @staticmethod
    def kernels() -> AbstractContextManager[None]:
        """The context of ``gradients``: of the kernels for attention, ``vmap`` knows the one of single operations."""
        kernels: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
        return kernels

    def gradients(self, batch: Batch, size: int, shared: bool) -> Gradients:
        """Find the gradient of each member's mean loss over ``size`` samples.

        The tensors of ``batch`` are (samples, ...) where all members share them, else (members, samples, ...). Returns
        the summed losses (members,), and the weight they count in: one for all, or (members,).
        """
        count = micro_batches(size, 1, self._micro_batch_size)
        parts = split_evenly(batch, size, count) if shared else _split_evenly(batch, size, count)
        own = [*self._trained, *self._fixed, *self._scalars.values()]
        # Tensor by tensor: to take dictionaries apart and put them together costs more than a small model's step.
        dims = (*(0 for _ in own), *(None if shared else 0 for _ in batch))
        run = vmap(partial(self._loss, list(batch)), in_dims=dims)
        gradients: tuple[Tensor, ...] = ()
        losses, weights = [], []
        for one in parts:
            with self._steppers[0].precision.forward():
                total, *weight = run(*own, *one.values())
            scale = torch.full_like(total, 1 / size)
            found = torch.autograd.grad(total, self._trained, scale)
            gradients = torch._foreach_add(gradients, found) if gradients else found
            losses.append(total.detach())
            weights += weight
        torch.cat([one.flatten(1) if one.dim() > 1 else one[:, None] for one in gradients], 1, out=self._gradients)
        loss = losses[0] if count == 1 else torch.stack(losses).sum(0)
        if not weights:
            return Gradients(loss, float(size))
        counted = torch.stack(weights).sum(0)
        # A batch in which nothing counts has a loss of zero, not of 0 / 0.
        counted = torch.where(counted == 0, 1.0, counted)
        self._gradients *= (size / counted).to(self._gradients.dtype)[:, None]
        return Gradients(loss, counted)

    @torch.no_grad()
    def update(self, rates: Sequence[float]) -> Tensor | None:
        """Change the parameters at every member's learning rate; the gradients' norms before clipping (members,), None
        where no member clips."""
        norms = None
        if any(self.clips):
            norms = torch.linalg.vector_norm(self._gradients, dim=1)
            self._gradients *= (self._limits / (norms + 1e-6)).clamp(max=1.0)[:, None]  # as clip_grad_norm_ does
        self._optimizer.step(rates)
        return norms

    def settle(self, member: int) -> None:
        """Give a member's own optimizer its state, for whoever saves it or goes on without the others."""
        self._optimizer.settle(member, self._steppers[member].optimizer)

    def row_of_gradients(self, member: int) -> Tensor:
        """A member's gradient, as ``gradients`` left it: (values,), in the order of its trained parameters."""
        return self._gradients[member]

    def _loss(self, keys: Sequence[str], *tensors: Tensor) -> tuple[Tensor, ...]:
        """One member's summed loss and, where its task counts, what that counts for.

        ``tensors``: its trained parameters, what is fixed but its own, its scalars, and a batch with these ``keys``.
        """
        given, task = iter(tensors), self._task
        with _put(self._places, given):
            if self._scalars:
                assert isinstance(task, TakesScalars)
                task = task.with_scalars(dict(zip(self._scalars, given, strict=False)))
            loss = loss_of(task, self._model, dict(zip(keys, given, strict=True)))
        if loss.weight is None:
            return (loss.total,)
        if isinstance(loss.weight, Tensor):
            return loss.total, loss.weight.double()
        return loss.total, torch.full((), loss.weight, dtype=torch.float64, device=loss.total.device)


@contextmanager
def _put(places: Sequence[Sequence[_Place]], tensors: Iterator[Tensor]) -> Iterator[None]:
    """Within the ``with`` block the next of ``tensors`` are at the ``places``, one at each.

    ``torch.func.functional_call`` does the same, and looks for them in the whole model each time.
    """
    before = [(table, key, table[key]) for table, key in chain.from_iterable(places)]
    try:
        for same in places:
            tensor = next(tensors)
            for table, key in same:
                table[key] = tensor
        yield
    finally:
        for table, key, tensor in before:
            table[key] = tensor


def _places(module: nn.Module, names: Sequence[str]) -> list[list[_Place]]:
    """Of each name: several where parts of the model share it."""
    found: dict[int, list[_Place]] = {}
    for one in module.modules():
        for table in (one._parameters, one._buffers):
            for key, tensor in table.items():
                found.setdefault(id(tensor), []).append((table, key))
    known = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return [found[id(known[name])] for name in names]


def _column(rows: Tensor, slot: Slot) -> Tensor:
    """A parameter of all members: (members, *shape)."""
    return rows[:, slot.low : slot.high].view(len(rows), *slot.shape)


def _differing(modules: Sequence[nn.Module], names: Sequence[str]) -> dict[str, Tensor]:
    """Parameters other than ``names``, and buffers, that are not the same in all members: (members, ...)."""
    tables = [{**dict(module.named_parameters()), **dict(module.named_buffers())} for module in modules]
    return {
        name: torch.stack([table[name].detach() for table in tables])
        for name, one in tables[0].items()
        if name not in names and not all(torch.equal(one, table[name]) for table in tables[1:])
    }


def _scalars(tasks: Sequence[Task], device: torch.device) -> dict[str, Tensor]:
    """What the members' tasks differ in, by name: (members,). Empty where they differ in nothing."""
    known = [task.scalars for task in tasks if isinstance(task, TakesScalars)]
    if not known or all(one == known[0] for one in known):
        return {}
    return {name: torch.tensor([float(one[name]) for one in known], device=device) for name in known[0]}


def _split_evenly(batch: Batch, size: int, count: int) -> list[Batch]:
    """As ``split_evenly``, of tensors (members, samples, ...)."""
    bounds = [part(size, index, count) for index in range(count)]
    return [{name: tensor[:, low:high] for name, tensor in batch.items()} for low, high in bounds]
