"""Weights that another training starts from: those of a checkpoint, with means."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import training_pieces as pieces
from epochal.tracking.recorder import MemoryRecorder
from epochal.training import checkpoint, weights
from epochal.training.control import NullControl
from epochal.training.fit import fit
from epochal.training.worker import Worker


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3))
    model[1].weight = model[0].weight
    return model


def test_a_tied_weight_is_its_mean_by_each_of_its_names(tmp_path: Path) -> None:
    job = pieces.spec(average={"decay": 0.8}, checkpoint__every="1ep")
    fit(pieces.setup(job, tied), Worker(), tmp_path, MemoryRecorder(), NullControl())
    folder = tmp_path / checkpoint.FOLDER
    found = weights.read(folder / checkpoint.name_of(checkpoint.steps(folder)[0]))
    exported = weights.read(tmp_path / weights.FILE)
    assert found.keys() == exported.keys()
    for name, mean in exported.items():
        assert torch.equal(found[name], mean), name
    assert not torch.equal(exported["0.weight"], weights.read(tmp_path / weights.LAST)["0.weight"])
