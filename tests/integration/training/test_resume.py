"""A training that was interrupted goes on as if it had not been."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn

import training_pieces as pieces
from epochal.catalog.data import LoadedData
from epochal.errors import NonFiniteLossError, NonFiniteStateError
from epochal.spec.job import JobSpec
from epochal.tracking.recorder import MemoryRecorder
from epochal.training import checkpoint, saver, sharding
from epochal.training.control import NullControl, Phase, Report, Saved, SetAside
from epochal.training.fit import FitResult, fit
from epochal.training.sampler import Sampler
from epochal.training.saver import Saver
from epochal.training.segment import RESUMED
from epochal.training.worker import Worker
from training_gang import GangError, TestGang

Run = tuple[FitResult | None, dict[str, list[tuple[int, float]]], list[Report]]


class BrokenOffError(Exception):
    pass


class Scripted(NullControl):
    """Asks one worker to stop, or fails on all, once a step is done."""

    def __init__(self, stop_after: int | None = None, fail_after: int | None = None) -> None:
        self.stop_after, self.fail_after = stop_after, fail_after
        self.step = 0
        self.reports: list[Report] = []

    def tick(self, phase: Phase, step: int) -> None:
        self.step = step
        if self.fail_after is not None and phase == "train" and step > self.fail_after:
            raise BrokenOffError

    def stop_requested(self) -> bool:
        return self.stop_after is not None and self.step >= self.stop_after

    def report(self, report: Report) -> None:
        self.reports.append(report)


def fitted(
    worker: Worker,
    job: JobSpec,
    folder: Path,
    script: dict[str, int],
    changes: dict[str, Any],
    build: Callable[[], nn.Module],
) -> Run:
    sharding.BLOCK_PARAMETERS = 100
    control = Scripted(**script) if worker.rank == worker.world_size - 1 or "fail_after" in script else Scripted()
    recorder, result = MemoryRecorder(), None
    with contextlib.suppress(BrokenOffError):
        result = fit(pieces.setup(job, build, **changes), worker, folder, recorder, control, RESUMED)
    return result, recorder.history, control.reports


def run(
    gang: TestGang,
    kind: tuple[int, str],
    job: JobSpec,
    folder: Path,
    script: dict[str, int] | None = None,
    changes: dict[str, Any] | None = None,
    build: Callable[[], nn.Module] = pieces.mlp,
) -> list[Run]:
    world_size, strategy = kind
    resources = job.resources.model_copy(update={"strategy": strategy, "workers": world_size})
    job = job.model_copy(update={"resources": resources})
    return gang.run(world_size, fitted, job, folder, script or {}, changes or {}, build)


def losses(runs: list[Run]) -> dict[int, float]:
    return dict(runs[0][1].get("train/loss", []))


slow = partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize("kind", [slow((1, "ddp")), slow((3, "ddp")), (3, "fsdp")])
def test_stopped_in_mid_epoch_goes_on_exactly(gang: TestGang, tmp_path: Path, kind: tuple[int, str]) -> None:
    job = pieces.spec(epochs=3, clip_grad_norm=1.0)
    unbroken = run(gang, kind, job, tmp_path / "unbroken", build=pieces.dropping_mlp)
    stopped = run(gang, kind, job, tmp_path / "broken", {"stop_after": 6}, build=pieces.dropping_mlp)
    states = {result.state for result, *_ in stopped if result}
    steps = {result.step for result, *_ in stopped if result}
    assert states == {"stopped"}
    assert len(steps) == 1
    (step,) = steps
    assert 6 <= step < 12
    assert not (tmp_path / "broken" / "model").exists()
    resumed = run(gang, kind, job, tmp_path / "broken", build=pieces.dropping_mlp)
    assert min(losses(resumed)) == step + 1
    assert losses(stopped) | losses(resumed) == losses(unbroken)
    assert resumed[0][0].metrics == unbroken[0][0].metrics
    assert (tmp_path / "broken" / "model" / "weights.safetensors").exists()


@pytest.mark.parametrize("kind", [(2, "ddp"), slow((2, "fsdp"))])
def test_frozen_and_accumulating_goes_on_exactly(gang: TestGang, tmp_path: Path, kind: tuple[int, str]) -> None:
    job = pieces.spec(epochs=3, global_batch_size=5, freeze=["1.*"], micro_batch_size=2, precision="fp16",
                      batch_norm="local")  # fmt: skip
    unbroken = run(gang, kind, job, tmp_path / "unbroken", build=pieces.normed_cnn)
    stopped = run(gang, kind, job, tmp_path / "broken", {"stop_after": 6}, build=pieces.normed_cnn)
    resumed = run(gang, kind, job, tmp_path / "broken", build=pieces.normed_cnn)
    assert losses(resumed)
    assert losses(stopped) | losses(resumed) == losses(unbroken)


@pytest.mark.parametrize("kind", [slow((1, "ddp")), (3, "ddp"), slow((3, "fsdp"))])
def test_failed_goes_on_from_the_newest_checkpoint(gang: TestGang, tmp_path: Path, kind: tuple[int, str]) -> None:
    job = pieces.spec(epochs=3, checkpoint__every="3steps", optimizer={"name": "sgd"})
    changes = {"optimizer": pieces.sgd}
    unbroken = run(gang, kind, job, tmp_path / "unbroken", {}, changes, pieces.dropping_mlp)
    failed = run(gang, kind, job, tmp_path / "broken", {"fail_after": 7}, changes, pieces.dropping_mlp)
    assert failed[0][0] is None
    assert checkpoint.steps(tmp_path / "broken" / "checkpoints") == [6]
    resumed = run(gang, kind, job, tmp_path / "broken", {}, changes, pieces.dropping_mlp)
    assert min(losses(resumed)) == 7
    assert losses(failed) | losses(resumed) == losses(unbroken)


def test_resumes_with_other_workers_and_strategies(gang: TestGang, tmp_path: Path) -> None:
    job = pieces.spec(epochs=4, checkpoint__every="2steps")
    unbroken = run(gang, (1, "ddp"), job, tmp_path / "unbroken")
    curve: dict[int, float] = {}
    changes_of_mind = [((2, "ddp"), 3), ((3, "fsdp"), 6), ((2, "fsdp"), 9), ((3, "ddp"), 12), ((1, "ddp"), None)]
    for kind, fail_after in changes_of_mind:
        script = {} if fail_after is None else {"fail_after": fail_after}
        curve |= losses(run(gang, kind, job, tmp_path / "broken", script))
    assert curve == pytest.approx(losses(unbroken), rel=2e-5)
    assert len(curve) == 16


def test_damaged_checkpoint_is_set_aside(gang: TestGang, tmp_path: Path) -> None:
    job = pieces.spec(epochs=3, checkpoint__every="2steps", checkpoint__keep={"latest": 3})
    unbroken = run(gang, (2, "ddp"), job, tmp_path / "unbroken")
    run(gang, (2, "ddp"), job, tmp_path / "broken", {"fail_after": 7})
    folder = tmp_path / "broken" / "checkpoints"
    assert checkpoint.steps(folder) == [6, 4, 2]
    flip_a_byte(next((folder / "step-00000006").glob("__1_*")))
    (folder / "step-00000004" / "manifest.json").write_text("{")
    resumed = run(gang, (2, "ddp"), job, tmp_path / "broken")
    assert min(losses(resumed)) == 3
    assert losses(resumed) == {step: loss for step, loss in losses(unbroken).items() if step > 2}
    aside = sorted(
        (report for _, _, reports in resumed for report in reports if isinstance(report, SetAside)),
        key=lambda report: report.step,
    )
    assert [report.path for report in aside] == [f"checkpoints/step-0000000{step}.damaged" for step in (4, 6)]
    assert "no sound manifest" in aside[0].why
    assert "is damaged" in aside[1].why


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("kind", [(1, "ddp"), (3, "ddp"), (2, "fsdp")])
def test_loss_that_is_not_finite_names_step_and_rank(gang: TestGang, tmp_path: Path, kind: tuple[int, str]) -> None:
    """The poisoned sample is the last of its batch, and so with the last worker."""
    job = pieces.spec(epochs=3)
    split = pieces.samples(25)
    last_of_second_batch = int(Sampler(25, job.train.global_batch_size, job.train.seed).order(0)[15])
    split.tensors["input"][last_of_second_batch] = 1000
    data = LoadedData(split, None, pieces.data().info, "0", "made up")
    with pytest.raises(GangError) as raised:
        run(gang, kind, job, tmp_path, changes={"task": pieces.Poisoned(), "data": data})
    errors = raised.value.errors
    assert {(type(error), error.step, error.rank) for error in errors} == {(NonFiniteLossError, 2, kind[0] - 1)}


def _explosive(**fields: Any) -> tuple[JobSpec, LoadedData]:
    """The second batch holds what ``pieces.Explosive`` waits for."""
    job, split = pieces.spec(epochs=3, checkpoint__every="1steps", **fields), pieces.samples(25)
    split.tensors["input"][int(Sampler(25, job.train.global_batch_size, job.train.seed).order(0)[15])] = 1000
    return job, LoadedData(split, None, pieces.data().info, "0", "made up")


def test_weights_that_are_not_finite_end_every_worker(gang: TestGang, tmp_path: Path) -> None:
    job, data = _explosive()
    with pytest.raises(GangError) as raised:
        run(gang, (2, "fsdp"), job, tmp_path, changes={"task": pieces.Explosive(), "data": data})
    errors = raised.value.errors
    assert {(type(error), error.step, error.rank) for error in errors} == {(NonFiniteStateError, 2, 0)}
    assert checkpoint.steps(tmp_path / "checkpoints") == [1]


class LateError(NonFiniteStateError):
    def __init__(self, step: int, rank: int, name: str) -> None:
        time.sleep(1)
        super().__init__(step, rank, name)


def fitted_where_the_first_learns_late(worker: Worker, job: JobSpec, folder: Path, changes: dict[str, Any]) -> None:
    """The second worker knows before its next step that a checkpoint was refused; the first has begun that step."""
    finished = Saver.finished

    def late(saver: Saver) -> list[Saved]:
        time.sleep(0.5)
        return finished(saver)

    with mock.patch.object(
        *((saver, "NonFiniteStateError", LateError) if worker.is_first else (Saver, "finished", late))
    ):
        fit(pieces.setup(job, pieces.mlp, **changes), worker, folder, MemoryRecorder(), NullControl(), RESUMED)


def test_a_worker_that_learns_first_of_weights_that_are_not_finite_waits_for_the_others(
    gang: TestGang, tmp_path: Path
) -> None:
    job, data = _explosive(resources__workers=2)
    with pytest.raises(GangError) as raised:
        gang.run(2, fitted_where_the_first_learns_late, job, tmp_path, {"task": pieces.Explosive(), "data": data})
    errors = raised.value.errors
    assert {(isinstance(error, NonFiniteStateError), error.step, error.rank) for error in errors} == {(True, 2, 0)}


def test_saved_is_reported_once_it_is_complete(gang: TestGang, tmp_path: Path) -> None:
    job = pieces.spec(epochs=3, checkpoint__every="1ep", objective__metric="val/accuracy", objective__mode="max")
    first, second = run(gang, (2, "ddp"), job, tmp_path)
    saved = [report for report in first[2] if isinstance(report, Saved)]
    assert [one.step for one in saved] == [4, 8, 12]
    assert not second[2]
    assert saved[0].best
    kept = set(checkpoint.steps(tmp_path / "checkpoints"))
    assert kept == {12, first[0].best[1]}
    assert torch.isfinite(torch.tensor(list(saved[-1].metrics.values()))).all()
