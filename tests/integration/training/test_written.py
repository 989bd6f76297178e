"""What forward passes leave behind is the same on every worker, or ends the training with its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import dependent_models as models
import training_pieces as pieces
from epochal.errors import SpecError, TrainingError
from epochal.tracking.recorder import MemoryRecorder
from epochal.training import checkpoint
from epochal.training.control import NullControl
from epochal.training.fit import fit
from epochal.training.segment import RESUMED, WHOLE
from epochal.training.worker import Worker
from training_gang import GangError, TestGang

GANGS = [(1, "ddp"), (2, "ddp"), (3, "ddp"), (2, "fsdp")]


class Scalar(models.Plain):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))


def fitted(worker: Worker, build: Callable[[], nn.Module], job: Any, folder: Path, resume: bool = False) -> list[Any]:
    """The losses of each step. 26 samples: 3 do not divide 8, and the last batch has one for each of two."""
    recorder = MemoryRecorder()
    setup = pieces.setup(job, build, data=pieces.data(26), optimizer=pieces.sgd)
    fit(setup, worker, folder, recorder, NullControl(), RESUMED if resume else WHOLE)
    return recorder.history.get("train/loss", [])


def losses(
    gang: TestGang, build: Callable[[], nn.Module], gang_of: tuple[int, str], folder: Path, **train: Any
) -> list[float]:
    job = pieces.spec(epochs=2, resources__workers=gang_of[0], resources__strategy=gang_of[1], **train)
    return [loss for _, loss in gang.run(gang_of[0], fitted, build, job, folder)[0]]


@pytest.mark.parametrize(
    ("build", "train"),
    [
        (models.Unused, {}),
        pytest.param(models.Counter, {}, marks=pytest.mark.slow),
        (models.SpectralNorm, {"clip_grad_norm": 0.3}),
        (models.Plain, {"global_batch_size": 7, "micro_batch_size": 2}),
    ],
)
def test_the_same_on_any_number_of_workers(
    gang: TestGang, tmp_path: Path, build: Callable[[], nn.Module], train: dict[str, Any]
) -> None:
    alone, *others = (losses(gang, build, each, tmp_path / "".join(map(str, each)), **train) for each in GANGS)
    for other in others:
        assert other == pytest.approx(alone, rel=1e-4)


@pytest.mark.parametrize("build", [models.EveryThird, models.Branch])
def test_branches_that_are_left_out_in_some_steps_are_the_same_where_ddp_looks_for_them(
    gang: TestGang, tmp_path: Path, build: Callable[[], nn.Module]
) -> None:
    alone, three = (
        losses(gang, build, each, tmp_path / str(each[0]), find_unused_parameters=True) for each in (GANGS[0], GANGS[2])
    )
    if build is models.EveryThird:  # samples of another share decide otherwise
        assert three == pytest.approx(alone, rel=1e-4)
    assert len(three) == len(alone)


@pytest.mark.parametrize(
    ("build", "gang_of", "error", "message"),
    [
        (models.OwnStatistics, (2, "ddp"), TrainingError, "mean became different on different workers"),
        (models.MemoryBank, (2, "fsdp"), TrainingError, "bank became different on different workers"),
        (models.InstanceNorm, (3, "ddp"), TrainingError, "norm.running_mean, norm.running_var became different"),
        (models.ActNorm, (2, "ddp"), TrainingError, "scale became different on different workers"),
        (models.EveryThird, (2, "ddp"), TrainingError, "middle.weight, middle.bias got a gradient in the first step"),
        (Scalar, (2, "fsdp"), SpecError, "cannot shard scale, a scalar"),
    ],
)
def test_what_differs_ends_the_training_by_name(
    gang: TestGang, tmp_path: Path, build: Callable[[], nn.Module], gang_of: tuple[int, str], error: Any, message: str
) -> None:
    with pytest.raises(GangError, match=message) as caught:
        losses(gang, build, gang_of, tmp_path)
    assert error in {type(one) for one in caught.value.errors}


def test_a_branch_that_one_worker_leaves_out_ends_the_training_before_it_changes_anything(
    gang: TestGang, tmp_path: Path
) -> None:
    """The others wait for its gradient: it ends, they find its connection closed."""
    with pytest.raises(GangError, match=r"middle.weight, middle.bias got a gradient in the first step") as caught:
        losses(gang, models.LeftOutByTheSecond, (2, "ddp"), tmp_path)
    told = next(one for one in caught.value.errors if isinstance(one, TrainingError))
    assert "find_unused_parameters" in (told.hint or "")


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_varying_buffers_are_those_of_the_first_worker_and_resume_exactly(
    gang: TestGang, tmp_path: Path, strategy: str
) -> None:
    job = pieces.spec(steps=6, epochs=None, varying_buffers=["bank"], checkpoint__every="3steps",
                      checkpoint__keep={"latest": 9}, resources__workers=2, resources__strategy=strategy)  # fmt: skip
    folders = [tmp_path / "whole", tmp_path / "resumed"]
    whole = gang.run(2, fitted, models.MemoryBank, job, folders[0])[0]
    middle = Path(checkpoint.FOLDER) / checkpoint.name_of(3)
    (folders[1] / middle.parent).mkdir(parents=True)
    (folders[0] / middle).rename(folders[1] / middle)
    assert gang.run(2, fitted, models.MemoryBank, job, folders[1], True)[0] == whole[3:]
    ends = [load_file(folder / "model" / "weights.safetensors") for folder in folders]
    assert all((ends[0][name] == ends[1][name]).all() for name in ends[0])


def test_a_pattern_that_matches_no_buffer_is_refused(gang: TestGang, tmp_path: Path) -> None:
    for gang_of in GANGS[:2]:
        with pytest.raises(GangError, match=r"train.varying_buffers: no buffer matches 'bnak'") as caught:
            losses(gang, models.MemoryBank, gang_of, tmp_path, varying_buffers=["bnak"])
        assert "bank" in (caught.value.errors[0].hint or "")  # type: ignore[union-attr]
