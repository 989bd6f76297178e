"""The loss that a task's parameters name, ready to be called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from epochal.catalog.entry import LossEntry, Params
from epochal.catalog.losses import LOSSES, balanced
from epochal.catalog.task import Loss
from epochal.errors import EpochalError
from epochal.spec.params import validated
from epochal.spec.section import Choice


@dataclass(frozen=True)
class ChosenLoss:
    """A loss entry with its validated parameters."""

    entry: LossEntry
    params: Params

    def of(self, outputs: Tensor, target: Tensor) -> Loss:
        return Loss(self.entry.build(self.params, outputs, target), self.entry.weight(self.params, target), outputs)

    @property
    def scalars(self) -> Mapping[str, float]:
        return {name: getattr(self.params, name) for name in self.entry.scalars}

    def with_scalars(self, values: Mapping[str, Tensor]) -> ChosenLoss:
        return replace(self, params=self.params.model_copy(update=dict(values)))


def chosen_loss(choice: Choice, target_kind: str, classes: int | None = None, counts: Sequence[int] = ()) -> ChosenLoss:
    """Look up the loss that ``choice`` names, for a target of so many ``classes`` (or labels) where it has some.

    ``counts`` are the training samples of each class, where they are known.

    Raises:
        NotFoundError: there is no such loss.
        SpecError: its parameters are wrong.
        EpochalError: it compares with another kind of target, weighs another number of classes, or is to balance
            classes that are not counted.
    """
    entry: Any = LOSSES.get(choice.name)
    if entry.target_kind != target_kind:
        fitting = [name for name in LOSSES if LOSSES.get(name).target_kind == target_kind]
        raise EpochalError(f"the loss {choice.name} is not for {target_kind} targets", f"use {', '.join(fitting)}")
    params = validated(entry.params, choice.params, "task.params.loss")
    for name in ("class_weights", "pos_weight"):
        weights = getattr(params, name, None)
        if weights == "balanced":
            if not counts:
                told = "class_weights: balanced needs the class of every training sample, and this dataset does not say"
                raise EpochalError(told, f"give {classes} numbers")
            params = params.model_copy(update={name: balanced(counts)})
        elif weights is not None and len(weights) != classes:
            raise EpochalError(f"{name} has {len(weights)} values for {classes or 1} classes")
    return ChosenLoss(entry, params)
