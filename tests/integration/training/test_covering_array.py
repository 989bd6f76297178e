"""Each pair of ways to train either trains, breaks off and resumes exactly, or is refused by a rule that names it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor, nn

import dependent_models as models
import phased_pieces
import training_pieces as pieces
from covering_array import QUICK, STEPS, Case, array, spec_of
from epochal.catalog.build import build_optimizer
from epochal.tracking.recorder import MemoryRecorder
from epochal.training import checkpoint, sharding
from epochal.training.control import NullControl
from epochal.training.fit import fit
from epochal.training.segment import RESUMED
from epochal.training.worker import Worker
from loader_pieces import Circling
from training_gang import TestGang


class Tied(nn.Module):
    """x: (batch, features): the last layer has the weight of the first but one."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(pieces.FEATURES, 16), nn.Tanh(), nn.Linear(16, 16), nn.Linear(16, 16))
        self.last = nn.Linear(16, pieces.CLASSES)
        self.layers[3].weight = self.layers[2].weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layers(x))


class Unused(nn.Module):
    """x: (batch, features): a layer that the output does not depend on, as a pooler's."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = pieces.mlp()
        self.pooler = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


MODELS = {
    "plain": pieces.mlp,
    "batch norm": pieces.normed_mlp,
    "dropout": pieces.dropping_mlp,
    "unused parameter": Unused,
    "tied weights": Tied,
    "frozen part": pieces.mlp,
    "branches": models.EveryThird,
    "bank": models.MemoryBank,
    "phases": phased_pieces.Gan,
}


def both(worker: Worker, case: Case, folder: Path) -> tuple[dict[int, float], dict[int, float]]:
    """The losses of an unbroken training, and those of one that goes on from its checkpoint in the middle."""
    sharding.BLOCK_PARAMETERS = 100  # blocks of the small models are sharded on their own too
    torch._dynamo.reset()
    spec = spec_of(case)
    middle = checkpoint.name_of(int(spec.checkpoint.every.value))

    def train(where: str) -> dict[int, float]:
        recorder = MemoryRecorder()
        # A batch norm cannot take the single sample that is left over of 25, nor one that a worker has of 26.
        data = pieces.data(28 if case["model"] == "batch norm" else 25)
        setup = pieces.setup(
            spec,
            MODELS[case["model"]],
            data=replace(data, stream=Circling(data.train)) if case["data"] == "stream" else data,
            task=phased_pieces.Adversarial() if case["model"] == "phases" else pieces.Classification(),
            optimizer=partial(build_optimizer, spec.train.optimizer),
        )
        fit(setup, worker, folder / where, recorder, NullControl(), RESUMED)
        return dict(recorder.history.get("train/loss", []))

    unbroken = train("unbroken")
    if worker.is_first:
        shutil.copytree(
            folder / "unbroken" / checkpoint.FOLDER / middle, folder / "resumed" / checkpoint.FOLDER / middle
        )
    if worker.world_size > 1:
        dist.barrier()
    return unbroken, train("resumed")


def resumes_exactly(gang: TestGang, case: Case, folder: Path) -> None:
    workers = 1 if case["strategy"] == "one worker" else 2
    unbroken, resumed = gang.run(workers, both, case, folder)[0]
    middle = int(spec_of(case).checkpoint.every.value)
    assert list(unbroken) == list(range(1, STEPS + 1))
    assert resumed == {step: loss for step, loss in unbroken.items() if step > middle}
    weights = [load_file(folder / where / "model" / "weights.safetensors") for where in ("unbroken", "resumed")]
    assert weights[0].keys() == weights[1].keys()
    assert not [name for name, value in weights[0].items() if not torch.equal(value, weights[1][name])]
    assert all(value.isfinite().all() for value in weights[0].values())


def _name(case: Case) -> str:
    return "-".join(value.replace(" ", "_") for value in case.values())


@pytest.mark.parametrize("case", array(QUICK), ids=_name)
def test_a_quick_case_resumes_exactly(gang: TestGang, tmp_path: Path, case: Case) -> None:
    resumes_exactly(gang, case, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("case", array(), ids=_name)
def test_every_case_resumes_exactly(gang: TestGang, tmp_path: Path, case: Case) -> None:
    resumes_exactly(gang, case, tmp_path)
