"""What an attempt finds in the job's folder, and how it goes on from there, on one worker."""

from __future__ import annotations

import errno
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import training_pieces as pieces
from epochal.errors import CheckpointError, CheckpointFormatError, NonFiniteStateError
from epochal.spec.job import JobSpec
from epochal.tracking.recorder import MemoryRecorder
from epochal.training import checkpoint, tensors
from epochal.training.control import Noted, NullControl, Phase, Report, SetAside
from epochal.training.fit import fit
from epochal.training.sampler import Sampler
from epochal.training.segment import RESUMED, Segment
from epochal.training.worker import Worker
from epochal.units import Interval


class BrokenOffError(Exception):
    pass


class Scripted(NullControl):
    """Fails once a step is done, or before the step ``fail_after`` + 1."""

    def __init__(self, fail_after: int | None = None) -> None:
        self.fail_after = fail_after
        self.reports: list[Report] = []

    def tick(self, phase: Phase, step: int) -> None:
        if self.fail_after is not None and phase == "train" and step > self.fail_after:
            raise BrokenOffError

    def report(self, report: Report) -> None:
        self.reports.append(report)


def train(
    job: JobSpec, folder: Path, fail_after: int | None = None, **changes: Any
) -> tuple[dict[int, float], list[Report]]:
    """The losses by step, and what was reported."""
    recorder, control = MemoryRecorder(), Scripted(fail_after)
    try:
        fit(pieces.setup(job, **changes), Worker(), folder, recorder, control, RESUMED)
    except BrokenOffError:
        assert fail_after is not None
    return dict(recorder.history.get("train/loss", [])), control.reports


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_a_damaged_checkpoint_stops_no_later_one(tmp_path: Path) -> None:
    job, folder = pieces.spec(epochs=3, checkpoint__every="2steps"), tmp_path / "checkpoints"
    train(job, tmp_path, fail_after=9)
    assert checkpoint.steps(folder) == [8]
    flip_a_byte(folder / "step-00000008" / "__0_0.distcp")
    second, reports = train(job, tmp_path, fail_after=5)
    assert min(second) == 1
    assert checkpoint.steps(folder) == [4]
    (aside,) = [report for report in reports if isinstance(report, SetAside)]
    assert aside.path == "checkpoints/step-00000008.damaged"
    assert "__0_0.distcp is damaged" in aside.why
    assert (tmp_path / aside.path / "__0_0.distcp").exists()
    third, _ = train(job, tmp_path)
    assert min(third) == 5


def test_a_state_beyond_the_end_of_a_segment_is_not_taken_for_that_of_its_end(tmp_path: Path) -> None:
    """What a loss of power leaves of a trial whose next length nobody remembers."""
    job = pieces.spec(epochs=3, checkpoint__every="1steps", checkpoint__keep={"latest": 2, "best": 0})
    whole, _ = train(pieces.spec(epochs=3), tmp_path / "whole")
    train(job, tmp_path, fail_after=9)
    assert checkpoint.steps(tmp_path / "checkpoints") == [9, 8]
    recorder, control = MemoryRecorder(), Scripted()
    segment = Segment(resume=True, until=Interval(8, "steps"))
    result = fit(pieces.setup(job), Worker(), tmp_path, recorder, control, segment)
    assert result.step == 8
    assert Noted("the checkpoint of step 9 is removed: this is to end at step 8") in control.reports
    assert checkpoint.steps(tmp_path / "checkpoints") == [8]
    resumed, _ = train(job, tmp_path)
    assert resumed == {step: loss for step, loss in whole.items() if step > 8}


def test_data_that_has_shrunk_costs_a_job_no_checkpoint(tmp_path: Path) -> None:
    job = pieces.spec(epochs=3, checkpoint__every="1steps", checkpoint__keep={"latest": 2, "best": 0})
    train(job, tmp_path, fail_after=9)
    train(job, tmp_path, data=replace(pieces.data(), train=pieces.samples(8)))
    assert checkpoint.steps(tmp_path / "checkpoints") == [9, 8]


@pytest.mark.parametrize(("written", "age"), [(checkpoint.FORMAT + 1, "newer"), (checkpoint.FORMAT - 1, "older")])
def test_a_checkpoint_of_another_format_is_no_damaged_one(tmp_path: Path, written: int, age: str) -> None:
    job = pieces.spec(epochs=3, checkpoint__every="2steps", checkpoint__keep={"latest": 2, "best": 0})
    train(job, tmp_path, fail_after=9)
    folder = tmp_path / "checkpoints"
    manifest = folder / "step-00000008" / checkpoint.MANIFEST
    manifest.write_text(json.dumps({"format": written, "of": "that version alone"}))
    there = sorted(folder.rglob("*"))
    told = rf"step-00000008 is in format {written}, .* {age} .* format {checkpoint.FORMAT}"
    with pytest.raises(CheckpointFormatError, match=told):
        train(job, tmp_path)
    assert sorted(folder.rglob("*")) == there
    assert checkpoint.steps(folder) == [8, 6]


def test_a_checkpoint_that_the_disk_does_not_give_now_is_not_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, folder = pieces.spec(epochs=3, checkpoint__every="2steps"), tmp_path / "checkpoints"
    train(job, tmp_path, fail_after=9)
    read_text = Path.read_text

    def stale(self: Path, *args: Any, **kwargs: Any) -> str:
        if self.name == checkpoint.MANIFEST:
            raise OSError(errno.ESTALE, "Stale file handle", str(self))
        return read_text(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", stale)
        with pytest.raises(OSError, match="Stale file handle"):
            train(job, tmp_path)
    assert checkpoint.steps(folder) == [8]
    resumed, _ = train(job, tmp_path)
    assert min(resumed) == 9


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    job, split = pieces.spec(epochs=3, checkpoint__every="1steps"), pieces.samples(25)
    split.tensors["input"][int(Sampler(25, job.train.global_batch_size, job.train.seed).order(0)[15])] = 1000
    data = replace(pieces.data(), train=split)
    for _ in range(2):  # the second attempt goes on from a checkpoint that is sound, and comes to the same end
        with pytest.raises(NonFiniteStateError, match=r"NaN or infinity after step 2 on rank 0") as raised:
            train(job, tmp_path, task=pieces.Explosive(), data=data)
        assert raised.value.name.startswith("model.")
        assert checkpoint.steps(tmp_path / "checkpoints") == [1]


class Masked(nn.Module):
    """With infinity in a buffer and in a frozen parameter, as masks have it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = pieces.mlp()
        self.register_buffer("mask", torch.full((3, 3), -torch.inf).triu(1))
        self.frozen = nn.Parameter(torch.tensor([torch.inf]), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def test_infinity_that_no_step_has_made_is_saved(tmp_path: Path) -> None:
    train(pieces.spec(epochs=1), tmp_path, build=Masked)
    assert checkpoint.steps(tmp_path / "checkpoints") == [4]


def test_optimizer_state_that_is_not_finite_is_found() -> None:
    state = {"model.w": torch.ones(2), "optimizer.state.w.exp_avg": torch.tensor([1.0, -torch.inf])}
    assert tensors.first_not_finite(state, frozenset({"model.w"})) == "optimizer.state.w.exp_avg"


class LatePooler(nn.Module):
    """``pooler`` gets no gradient until its switch, a buffer, has counted to six."""

    def __init__(self) -> None:
        super().__init__()
        self.body = pieces.mlp(dropout=0.3)
        self.pooler = nn.Linear(pieces.CLASSES, pieces.CLASSES)
        self.unused = nn.Linear(3, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        output = self.body(x)
        self.calls += self.training
        return self.pooler(output) if self.calls > 6 else output


@pytest.mark.parametrize("optimizer", [pieces.adamw, pieces.sgd])
def test_parameters_without_gradients_go_on_exactly(tmp_path: Path, optimizer: Any) -> None:
    job = pieces.spec(epochs=3, checkpoint__every="5steps")
    unbroken, _ = train(job, tmp_path / "unbroken", build=LatePooler, optimizer=optimizer)
    failed, _ = train(job, tmp_path / "broken", build=LatePooler, optimizer=optimizer, fail_after=5)
    resumed, _ = train(job, tmp_path / "broken", build=LatePooler, optimizer=optimizer)
    assert min(resumed) == 6
    assert failed | resumed == unbroken


def test_no_optimizer_state_is_invented(tmp_path: Path) -> None:
    model = LatePooler()
    optimizer = pieces.adamw(dict(model.named_parameters()))
    model(torch.ones(2, pieces.FEATURES)).sum().backward()
    optimizer.step()
    captured, plain = tensors.capture(model, optimizer, Worker(), {})
    tensors.save(captured, tmp_path, None)
    other = LatePooler()
    fresh = pieces.adamw(dict(other.named_parameters()))
    tensors.restore(other, fresh, tmp_path, plain)
    assert {len(fresh.state[parameter]) for parameter in other.body.parameters()} == {3}
    assert not any(parameter in fresh.state for part in (other.pooler, other.unused) for parameter in part.parameters())


@pytest.mark.parametrize(("before", "after"), [(0.0, 0.9), (0.9, 0.0)])
def test_momentum_that_a_copy_begins_with_begins_at_zero(tmp_path: Path, before: float, after: float) -> None:
    """As `pbt` has it where it searches 0 among others. The trial that took over the other's state failed."""

    def sgd(momentum: float, named: Mapping[str, nn.Parameter]) -> Optimizer:
        return torch.optim.SGD(named.values(), 0.1, momentum, fused=True)

    job = pieces.spec(epochs=2, checkpoint__every="4steps")
    train(job, tmp_path, optimizer=partial(sgd, before), fail_after=4)
    losses, reports = train(job, tmp_path, optimizer=partial(sgd, after))
    assert sorted(losses) == [5, 6, 7, 8]
    notes = [report.note for report in reports if isinstance(report, Noted)]
    assert len(notes) == (after > 0)
    assert all("the optimizer begins anew" in note for note in notes)


def test_workers_copy_a_share_each_of_what_all_have() -> None:
    model = nn.Sequential(*(nn.Linear(8, width) for width in (8, 8, 16, 4)))
    optimizer = pieces.adamw(dict(model.named_parameters()))
    for parameter in model.parameters():
        parameter.grad = torch.ones(parameter.shape)
    optimizer.step()
    whole, _ = tensors.capture(model, optimizer, Worker(), {})
    parts = [tensors.capture(model, optimizer, Worker(rank, 3), {})[0] for rank in range(3)]
    assert Counter(name for part in parts for name in part) == Counter(list(whole))
    sizes = [sum(value.nbytes for value in part.values()) for part in parts]
    assert max(sizes) - min(sizes) <= max(value.nbytes for value in whole.values())


def test_each_copy_takes_the_place_of_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And only once that one is written: a slow disk changes nothing in what is saved."""
    places: list[dict[str, int]] = []

    def seen(*state: Any) -> Any:
        captured, plain = capture(*state)
        places.append({name: value.data_ptr() for name, value in captured.items()})
        return captured, plain

    def slow(*given: Any, **more: Any) -> None:
        time.sleep(0.02)
        save(*given, **more)

    capture, save = tensors.capture, tensors.save
    job = pieces.spec(epochs=1, checkpoint__every="1steps", checkpoint__keep={"latest": 9})
    train(job, tmp_path / "quick")
    monkeypatch.setattr(tensors, "capture", seen)
    monkeypatch.setattr(tensors, "save", slow)
    train(job, tmp_path / "slow")
    assert len(places) >= 3
    assert all(place == places[0] for place in places)
    assert _saved(tmp_path / "slow") == _saved(tmp_path / "quick")


def _saved(job: Path) -> dict[str, str]:
    folder = job / checkpoint.FOLDER
    return {
        f"{step} {name}": digest
        for step in checkpoint.steps(folder)
        for name, digest in checkpoint.read(folder / checkpoint.name_of(step)).files.items()
        if name.endswith(".distcp")
    }


class OnAnotherDevice(nn.Parameter):
    """What a parameter on a GPU looks like from outside."""

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", 0)


def test_snapshot_shares_nothing_with_the_training() -> None:
    """``step`` of an unfused optimizer is on the CPU, wherever its parameters are."""
    model = nn.Linear(2, 2)
    model.weight = OnAnotherDevice(model.weight.data)
    optimizer = torch.optim.AdamW(model.parameters(), fused=False, foreach=False)

    def step() -> None:
        for parameter in model.parameters():
            parameter.grad = torch.ones(parameter.shape)
        optimizer.step()

    step()
    captured, _ = tensors.capture(model, optimizer, Worker(), {})
    before = {name: tensor.clone() for name, tensor in captured.items()}
    step()
    torch.testing.assert_close(captured, before, rtol=0, atol=0)
    assert before["optimizer.state.weight.step"] == 1


def test_weights_to_start_from_are_read_once(tmp_path: Path) -> None:
    train(pieces.spec(epochs=1), tmp_path / "first")
    given = tmp_path / "first" / "model" / "weights.safetensors"
    job = pieces.spec(epochs=3, checkpoint__every="5steps", init_from=str(given))
    unbroken, _ = train(job, tmp_path / "unbroken")
    failed, _ = train(job, tmp_path / "broken", fail_after=5)
    given.unlink()
    resumed, _ = train(job, tmp_path / "broken")
    assert failed | resumed == unbroken
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        train(job, tmp_path / "another")
