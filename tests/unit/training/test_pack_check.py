"""Models that cannot train as one are found out, and train one after another."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import phased_pieces
import training_pieces as pieces
from epochal.catalog.data import Batch
from epochal.catalog.task import EverySample, Loss
from packed_trials import UNWRITTEN, Noisy, alone, made, packed


class Stateful(nn.Module):
    """Counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = pieces.mlp()
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        result: Tensor = self.inner(x)
        return result


class Looking(pieces.Classification):
    """Decides by the values of its batch."""

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        loss = super().loss(model, batch)
        return loss._replace(total=loss.total * 2) if loss.outputs.max() > 0 else loss


class Leaky(pieces.Classification):
    """Gives other numbers where it is not computed by itself."""

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        loss = super().loss(model, batch)
        return loss._replace(total=loss.total * 2) if torch._C._functorch.is_batchedtensor(loss.total) else loss


class Following(pieces.Classification):
    """Looks at the model between steps."""

    def takes_stock(self, step: int) -> bool:
        return step % 3 == 0

    def take_stock(self, model: nn.Module, step: int, every_sample: EverySample) -> None:
        next(model.parameters()).mul_(0.5)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"build": pieces.dropping_mlp}, "a forward pass of its model draws random numbers"),
        ({"build": pieces.normed_mlp, "data": pieces.data(26)}, "a forward pass of its model writes 1.running_mean"),
        ({"build": Stateful}, "a forward pass of its model writes passes"),
        ({"task": Looking()}, "cannot be computed for several trials at once"),
        ({"data": replace(pieces.data(), train=Noisy(pieces.samples(25).tensors))}, "reading its data draws random"),
        ({"task": Leaky()}, "computes something else for several trials at once"),
        ({"task": Following()}, "its task looks at the model between two steps"),
        ({"build": phased_pieces.Gan, "task": phased_pieces.Adversarial()}, "its step is several passes, each with an"),
    ],
    ids=["dropout", "batch norm", "counter", "data dependent", "noise", "wrong", "stock", "phases"],
)
def test_what_cannot_be_packed_trains_one_after_another_and_says_why(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    setups = [partial(made, pieces.spec(seed=seed), **changes) for seed in range(2)]
    ours, found = packed([make() for make in setups], tmp_path, UNWRITTEN)
    assert why in found.why_alone
    for number, make in enumerate(setups):
        assert ours[number].notes == [f"not packed with other trials: {found.why_alone}"]
        reference = alone(make(), tmp_path / f"alone{number}", UNWRITTEN)
        assert ours[number].curve("train/loss") == reference.curve("train/loss")  # to the last bit


def test_trials_that_differ_in_more_than_scalars_train_one_after_another(tmp_path: Path) -> None:
    jobs = [pieces.spec(global_batch_size=size) for size in (8, 5)]
    ours, found = packed([made(job) for job in jobs], tmp_path, UNWRITTEN)
    assert found.why_alone == "they differ in more than scalar settings and seeds"
    assert [len(one.curve("train/loss")) for one in ours] == [7, 7]
