"""Trials that train as one: each with the result that it has alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import training_pieces as pieces
from epochal.catalog.data import Batch, TensorSplit
from epochal.catalog.task import Loss
from epochal.errors import EpochalError, NonFiniteLossError
from epochal.spec.job import JobSpec
from epochal.training import checkpoint
from epochal.training.fit import FitResult
from epochal.training.packing import ELEMENTWISE, key_of
from epochal.training.segment import RESUMED, Segment
from epochal.training.setup import prepare
from epochal.units import Interval
from packed_trials import CLOSE, UNSAVED, UNWRITTEN, alone, assert_as_alone, assert_same, made, packed

RATES = (0.003, 0.01, 0.05)
QUICK = ("adamw", "sgd", "nadam", "nesterov", "all")
"""The other optimizers go the same way through a pack, and the other settings are parts of ``all``."""
SETTINGS: dict[str, dict[str, Any]] = {name: {"optimizer": {"name": name}} for name in sorted(ELEMENTWISE)} | {
    "momentum": {"optimizer": {"name": "sgd", "momentum": 0.9, "weight_decay": 0.1}},
    "nesterov": {"optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": True}},
    "amsgrad": {"optimizer": {"name": "adam", "amsgrad": True}},
    "clipped": {"clip_grad_norm": 0.2},
    "scheduled": {"lr_schedule": {"name": "cosine", "warmup": 0.25}},
    "accumulated": {"micro_batch_size": 3},
    "all": {
        "clip_grad_norm": 0.2,
        "micro_batch_size": 3,
        "lr_schedule": {"name": "linear", "warmup": 2},
        "validate_every": "3steps",
        "checkpoint__every": "5steps",
    },
}


@pytest.mark.parametrize(
    ("settings", "seeds"),
    [
        *(pytest.param(name, (0, 1, 2), id=name) for name in QUICK),
        *(pytest.param(name, (0, 1, 2), id=name, marks=pytest.mark.slow) for name in SETTINGS if name not in QUICK),
        pytest.param("adamw", (3, 3, 3), id="one seed"),
        pytest.param("all", (3, 3, 3), id="all, one seed", marks=pytest.mark.slow),
    ],
)
def test_each_member_has_the_losses_that_it_has_alone(tmp_path: Path, settings: str, seeds: tuple[int, ...]) -> None:
    train = dict(SETTINGS[settings])
    optimizer = train.pop("optimizer", {"name": "adamw"})
    jobs = [
        pieces.spec(**train, seed=seed, optimizer={**optimizer, "lr": lr})
        for seed, lr in zip(seeds, RATES, strict=True)
    ]
    assert len({key_of(job) for job in jobs}) == 1
    assert assert_as_alone([partial(made, job) for job in jobs], tmp_path, UNWRITTEN).why_alone == ""


def test_members_may_differ_in_every_scalar(tmp_path: Path) -> None:
    jobs = [
        pieces.spec(seed=1, optimizer={"name": "sgd", "lr": 0.1}),
        pieces.spec(seed=2, optimizer={"name": "sgd", "lr": 0.1, "momentum": 0.9}, clip_grad_norm=0.1),
        pieces.spec(seed=3, optimizer={"name": "sgd", "lr": 0.2, "weight_decay": 0.1}, lr_schedule={"name": "cosine"}),
        pieces.spec(seed=4, optimizer={"name": "sgd", "lr": 0.2}, epochs=3),
    ]
    assert len({key_of(job) for job in jobs}) == 1
    assert assert_as_alone([partial(made, job) for job in jobs], tmp_path).why_alone == ""


def test_each_member_has_a_plateau_of_its_own(tmp_path: Path) -> None:
    plateau = {"name": "reduce_on_plateau", "metric": "val/loss", "mode": "min", "patience": 0, "min_delta": 0.1}
    jobs = [
        pieces.spec(epochs=6, seed=seed, optimizer={"lr": lr}, lr_schedule=plateau) for seed, lr in enumerate(RATES)
    ]
    assert assert_as_alone([partial(made, job) for job in jobs], tmp_path, UNWRITTEN).why_alone == ""
    ours, _ = packed([made(job) for job in jobs], tmp_path / "again")
    assert len({tuple(rate / lr for _, rate in one.curve("train/lr")) for one, lr in zip(ours, RATES, strict=True)}) > 1


@pytest.mark.parametrize("task", [pieces.WeightedClassification, pieces.Tokens, pieces.Uncounted])
def test_what_a_task_counts_is_counted_for_each_member(tmp_path: Path, task: Any) -> None:
    jobs = [pieces.spec(seed=seed, micro_batch_size=3) for seed in range(2)]
    assert assert_as_alone([partial(made, job, task=task()) for job in jobs], tmp_path, UNWRITTEN).why_alone == ""


MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"model": {"name": "mlp", "params": {"hidden": [16], "norm": "layer"}}, "data": {"name": "wine"}},
    "cnn": {"model": {"name": "cnn", "params": {"channels": [4, 8], "hidden": 16}}, "data": {"name": "digits"}},
    "transformer": {"model": {"name": "transformer", "params": {"width": 8, "layers": 1}}, "data": {"name": "wine"}},
}


@pytest.mark.parametrize("model", [pytest.param("mlp", marks=pytest.mark.slow), "cnn", "transformer"])
def test_models_of_the_catalog(tmp_path: Path, model: str) -> None:
    jobs = [
        JobSpec.model_validate(
            {
                "version": 1,
                "name": "test",
                **MODELS[model],
                "task": {"name": "classification", "params": {"loss": {"name": "cross_entropy", **loss}}},
                "train": {"steps": 8, "global_batch_size": 32, "seed": seed, "clip_grad_norm": 1.0},
            }
        )
        for seed, loss in enumerate([{}, {"label_smoothing": 0.2}])
    ]
    assert len({key_of(job) for job in jobs}) == 1
    assert assert_as_alone([partial(prepare, job, tmp_path) for job in jobs], tmp_path, UNWRITTEN).why_alone == ""


class Squares(pieces.Classification):
    """Grows without bounds where steps are too long."""

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        outputs = model(batch["input"])
        return Loss((outputs - 1).square().sum(), None, outputs)


def test_a_member_that_diverges_fails_as_it_would_alone_and_hurts_no_other(tmp_path: Path) -> None:
    rates = enumerate([0.01, 1e5, 0.02])
    jobs = [pieces.spec(epochs=8, seed=seed, optimizer={"name": "sgd", "lr": lr}) for seed, lr in rates]
    ours, _ = packed([made(job, task=Squares()) for job in jobs], tmp_path)
    assert isinstance(ours[1].outcome, NonFiniteLossError)
    assert ours[1].outcome.step < 32
    for number, job in enumerate(jobs):
        assert_same(ours[number], alone(made(job, task=Squares()), tmp_path / f"alone{number}"))


def test_who_has_had_enough_leaves_and_the_others_go_on(tmp_path: Path) -> None:
    patience = [1, 3, 2]
    jobs = [
        pieces.spec(epochs=6, seed=n, early_stopping={"metric": "val/loss", "mode": "min", "patience": n})
        for n in patience
    ]
    setups = [partial(made, job, task=pieces.AtTheAnswer()) for job in jobs]
    assert_as_alone(setups, tmp_path)
    ours, _ = packed([make() for make in setups], tmp_path / "again")
    assert [one.outcome.step for one in ours] == [4 * (1 + n) for n in patience]  # type: ignore[union-attr]


def test_one_member_is_stopped_and_goes_on_later(tmp_path: Path) -> None:
    jobs = [pieces.spec(epochs=4, seed=seed, validate_every="2steps") for seed in range(3)]
    ours, _ = packed([made(job) for job in jobs], tmp_path / "pack", stop1=3)
    assert isinstance(ours[1].outcome, FitResult)
    assert (ours[1].outcome.state, ours[1].outcome.step) == ("stopped", 4)
    assert checkpoint.steps(ours[1].folder / checkpoint.FOLDER) == [4]
    whole = [alone(made(job), tmp_path / f"alone{number}") for number, job in enumerate(jobs)]
    rest = alone(made(jobs[1]), ours[1].folder, RESUMED)
    assert rest.curve("train/loss") == [(step, pytest.approx(x, CLOSE)) for step, x in whole[1].curve("train/loss")[4:]]
    assert_same(ours[0], whole[0])
    assert_same(ours[2], whole[2])


@pytest.mark.parametrize("settings", ["nadam", "all"])
def test_a_paused_member_goes_on_in_a_pack_or_alone(tmp_path: Path, settings: str) -> None:
    train = dict(SETTINGS[settings])
    jobs = [pieces.spec(epochs=3, **train, seed=seed) for seed in range(2)]
    until = Segment(until=Interval(6, "steps"))
    whole = [alone(made(job), tmp_path / f"whole{number}") for number, job in enumerate(jobs)]
    packed([made(job) for job in jobs], tmp_path / "first packed", until)
    for number, job in enumerate(jobs):
        alone(made(job), tmp_path / "first alone" / str(number), until)
    then_packed, _ = packed([made(job) for job in jobs], tmp_path / "first alone", RESUMED)
    for number, job in enumerate(jobs):
        then_alone = alone(made(job), tmp_path / "first packed" / str(number), RESUMED)
        expected = [(step, pytest.approx(loss, CLOSE)) for step, loss in whole[number].curve("train/loss")[6:]]
        assert then_packed[number].curve("train/loss") == expected
        assert then_alone.curve("train/loss") == expected


def test_a_checkpoint_holds_what_it_would_hold_alone(tmp_path: Path) -> None:
    jobs = [pieces.spec(seed=seed) for seed in range(2)]
    until = Segment(until=Interval(6, "steps"))
    ours, _ = packed([made(job) for job in jobs], tmp_path, until)
    for number, job in enumerate(jobs):
        reference = alone(made(job), tmp_path / f"alone{number}", until)
        manifests = [
            checkpoint.read(one.folder / checkpoint.FOLDER / checkpoint.name_of(6)) for one in (ours[number], reference)
        ]
        assert manifests[0].state.keys() == manifests[1].state.keys()
        assert manifests[0].files.keys() == manifests[1].files.keys()
        generators = "generators-00000.json"
        assert manifests[0].files[generators] == manifests[1].files[generators]


def test_members_at_different_steps_are_packs_one_after_another(tmp_path: Path) -> None:
    jobs = [pieces.spec(seed=seed) for seed in range(4)]
    for number in (1, 3):
        alone(made(jobs[number]), tmp_path / str(number), Segment(until=Interval(3, "steps")))
    ours, found = packed([made(job) for job in jobs], tmp_path, RESUMED)
    assert found.why_alone == ""
    assert [one.curve("train/loss")[0][0] for one in ours] == [1, 4, 1, 4]
    assert [one.curve("train/loss")[-1][0] for one in ours] == [8, 8, 8, 8]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in sorted(ELEMENTWISE)]
)
def test_who_is_left_alone_goes_on_as_if_it_had_always_been(tmp_path: Path, name: str) -> None:
    """Its own optimizer takes over what the pack's has counted."""
    jobs = [pieces.spec(seed=seed, epochs=epochs, optimizer={"name": name}) for seed, epochs in enumerate((1, 3))]
    assert assert_as_alone([partial(made, job) for job in jobs], tmp_path).why_alone == ""


class Idle(nn.Module):
    """Has a parameter that its output does not depend on, and a buffer that no pass writes."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = pieces.mlp(), nn.Linear(2, 2)
        self.register_buffer("shift", torch.randn(pieces.FEATURES))

    def forward(self, x: Tensor) -> Tensor:
        shifted: Tensor = self.used(x + self.shift)
        return shifted


@pytest.mark.parametrize("freeze", [[], ["used.0.*"]], ids=["unused", "frozen too"])
def test_what_gets_no_gradient_stays_as_it_is(tmp_path: Path, freeze: list[str]) -> None:
    jobs = [
        pieces.spec(seed=seed, freeze=freeze, optimizer={"name": "adamw", "weight_decay": 0.5}) for seed in range(2)
    ]
    assert assert_as_alone([partial(made, job, build=Idle) for job in jobs], tmp_path).why_alone == ""


class Counting(TensorSplit):
    """Counts how often it is read."""

    reads = 0

    def fetch(self, indices: Sequence[int]) -> Batch:
        Counting.reads += 1
        return super().fetch(indices)


@pytest.mark.parametrize("seeds", [(0, 0, 0), (0, 1, 2)], ids=["one seed", "own seeds"])
def test_a_step_reads_once_for_all_members(tmp_path: Path, seeds: tuple[int, ...]) -> None:
    data = replace(pieces.data(validation=0), train=Counting(pieces.samples(25).tensors))
    before = Counting.reads
    packed([made(pieces.spec(seed=seed), data=data) for seed in seeds], tmp_path, UNSAVED)
    assert Counting.reads - before == 8


class Torn(TensorSplit):
    """Has a sample that cannot be read."""

    def fetch(self, indices: Sequence[int]) -> Batch:
        if 13 in indices:
            raise EpochalError("sample 13 cannot be read")
        return super().fetch(indices)


def test_what_fails_for_all_is_told_of_each(tmp_path: Path) -> None:
    data = replace(pieces.data(), train=Torn(pieces.samples(25).tensors))
    ours, _ = packed([made(pieces.spec(seed=seed, global_batch_size=2), data=data) for seed in range(2)], tmp_path)
    assert [str(one.outcome) for one in ours] == ["sample 13 cannot be read"] * 2


def test_a_member_that_cannot_start_costs_itself_alone(tmp_path: Path) -> None:
    jobs = [pieces.spec(seed=0), pieces.spec(seed=1, freeze=["nothing*"]), pieces.spec(seed=2)]
    ours, _ = packed([made(job) for job in jobs], tmp_path, UNSAVED)
    assert "no parameter matches" in str(ours[1].outcome)
    assert isinstance(ours[0].outcome, FitResult)
    assert isinstance(ours[2].outcome, FitResult)
