"""The loss that a task's parameters name, ready to be called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from epochal.catalog.data import Field
from epochal.catalog.entry import LossEntry, Params
from epochal.catalog.losses import LOSSES, balanced, balanced_ones
from epochal.catalog.task import Loss, in_fp32
from epochal.errors import EpochalError
from epochal.spec.params import validated
from epochal.spec.section import Choice


@dataclass(frozen=True)
class ChosenLoss:
    """A loss entry with its validated parameters."""

    entry: LossEntry
    params: Params

    def of(self, outputs: Tensor, target: Tensor) -> Loss:
        total = self.entry.build(self.params, in_fp32(outputs), target)
        return Loss(total, self.entry.weight(self.params, target), outputs)

    @property
    def scalars(self) -> Mapping[str, float]:
        return {name: getattr(self.params, name) for name in self.entry.scalars}

    def with_scalars(self, values: Mapping[str, Tensor]) -> ChosenLoss:
        return replace(self, params=self.params.model_copy(update=dict(values)))


def chosen_loss(choice: Choice, target_kind: str, target: Field | None = None) -> ChosenLoss:
    """Look up the loss that ``choice`` names, for a ``target`` of classes, or of a row of values, to each of which it
    may give a weight.

    Raises:
        NotFoundError: there is no such loss.
        SpecError: its parameters are wrong.
        EpochalError: it compares with another kind of target, weighs another number of classes or values, or is to
            balance what is not counted.
    """
    entry: Any = LOSSES.get(choice.name)
    if entry.target_kind != target_kind:
        fitting = [name for name in LOSSES if LOSSES.get(name).target_kind == target_kind]
        raise EpochalError(f"the loss {choice.name} is not for {target_kind} targets", f"use {', '.join(fitting)}")
    params = validated(entry.params, choice.params, "task.params.loss")
    for name, what in (("class_weights", "class"), ("pos_weight", "zeros and ones")):
        weights = getattr(params, name, None)
        if weights is None:
            continue
        if target is None:
            raise EpochalError(f"{name} weighs classes or labels, and this target has none", f"remove {name}")
        if weights == "balanced":
            found = balanced(target.counts) if name == "class_weights" else balanced_ones(target.labels)
            if not found:
                told = f"{name}: balanced needs the {what} of every training sample, and this dataset does not say"
                raise EpochalError(told, f"give {target.width} numbers")
            params = params.model_copy(update={name: found})
        elif len(weights) != target.width:
            raise EpochalError(f"{name} has {len(weights)} values for {target.width} classes")
    return ChosenLoss(entry, params)
