"""The loss that a task's parameters name, ready to be called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from epochal.catalog.entry import LossEntry, Params
from epochal.catalog.losses import LOSSES
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

    @property
    def class_weights(self) -> Sequence[float] | None:
        weights: Sequence[float] | None = getattr(self.params, "class_weights", None)
        return weights


def chosen_loss(choice: Choice, target_kind: str, classes: int | None = None) -> ChosenLoss:
    """Look up the loss that ``choice`` names, for a target of so many ``classes`` where it has some.

    Raises:
        NotFoundError: there is no such loss.
        SpecError: its parameters are wrong.
        EpochalError: it compares with another kind of target, or weighs another number of classes.
    """
    entry: Any = LOSSES.get(choice.name)
    if entry.target_kind != target_kind:
        fitting = [name for name in LOSSES if LOSSES.get(name).target_kind == target_kind]
        raise EpochalError(f"the loss {choice.name} is not for {target_kind} targets", f"use {', '.join(fitting)}")
    loss = ChosenLoss(entry, validated(entry.params, choice.params, "task.params.loss"))
    if loss.class_weights is not None and len(loss.class_weights) != classes:
        raise EpochalError(f"class_weights has {len(loss.class_weights)} values for {classes} classes")
    return loss
