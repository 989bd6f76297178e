"""Samples of more fields than input and target: what models are called with, and what the tasks of the catalog do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from epochal.catalog.build import build_task
from epochal.catalog.data import DataInfo, Field, LoadedData, TensorSplit
from epochal.catalog.tasks import TASKS
from epochal.errors import EpochalError
from epochal.spec.section import Component
from epochal.training.every_sample import read_all

LENGTH = {"length": Field((), torch.int64, 5)}
TARGETS = {
    "classification": Field((), torch.int64, 3),
    "regression": Field((3,)),
    "segmentation": Field((1, 1), torch.int64, 3),
    "language-modelling": Field((1,), torch.int64, 3),
    "reconstruction": Field(()),
}


class Scaled(nn.Module):
    """x: (batch, 3), length: (batch,)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, length: Tensor, x: Tensor) -> Tensor:
        return self.linear(x) * length[:, None]


@pytest.mark.parametrize("name", TARGETS)
def test_a_task_calls_the_model_with_the_fields_in_their_order(name: str) -> None:
    info = DataInfo(Field((3,)), TARGETS[name], LENGTH, inputs=("length", "input"))
    model, batch = Scaled(), info.example(4)
    loss = TASKS.get(name).build(TASKS.get(name).params(), info).loss(model, batch)
    assert torch.equal(loss.outputs.reshape(4, 3), model(batch["length"], batch["input"]))


def test_fields_that_are_not_there_are_told() -> None:
    with pytest.raises(EpochalError, match="inputs names lenght, and the fields are input, target, length"):
        DataInfo(Field((3,)), Field(()), LENGTH, inputs=("input", "lenght"))
    with pytest.raises(EpochalError, match="more has target"):
        DataInfo(Field((3,)), Field(()), {"target": Field(())})
    info = DataInfo(Field((3,)), Field((3,)), LENGTH, inputs=("input", "length"))
    task = build_task(Component(name="regression"), Component(name="own:data"), info)
    with pytest.raises(EpochalError, match="called with length, and the samples have input, target"):
        task.loss(Scaled(), {"input": torch.ones(2, 3), "target": torch.ones(2, 3)})


def test_every_field_of_every_sample_is_looked_at(tmp_path: Path) -> None:
    info = DataInfo(Field((3,)), Field(()), LENGTH)
    batch = info.example(6)
    batch["length"][4] = 5
    bad = read_all(LoadedData(TensorSplit(batch), None, info, "d", "s"), info.fields, 1, lambda _: None)
    assert [(one.sample, one.reason) for one in bad] == [(4, "the length is not from 0 to 4")]
