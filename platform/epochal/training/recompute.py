"""Gradient checkpointing (Chen et al. 2016, https://arxiv.org/abs/1604.06174): what a repeated part of a model computes
is not kept for the backward pass, but computed again in it. Memory for a third more time."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.distributed._composable.checkpoint_activation import checkpoint

from epochal.errors import Problem, SpecError


def recompute(model: nn.Module) -> None:
    """Have the repeated parts of ``model`` computed again in the backward pass.

    A part with a buffer is left as it is: a second pass would write to it once more, as to a batch norm's statistics.

    Raises:
        SpecError: there is no part without one.
    """
    parts = list(_parts(model))
    if not parts:
        told = "the model has no item of an nn.Sequential or nn.ModuleList that has parameters and no buffers"
        raise SpecError("the job spec", (Problem("train.gradient_checkpointing", told, value=True),))
    for part in parts:
        checkpoint(part)


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost."""
    for child in module.children():
        repeated = isinstance(module, nn.Sequential | nn.ModuleList) and type(child).forward is not nn.Module.forward
        if repeated and any(True for _ in child.parameters()) and not any(True for _ in child.buffers()):
            yield child
        else:
            yield from _parts(child)
