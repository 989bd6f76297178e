"""Trials in a pack and the same trials alone, and whether they end alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import training_pieces as pieces
from epochal.catalog.build import build_lr_schedule, build_optimizer
from epochal.catalog.data import Batch, TensorSplit
from epochal.errors import EpochalError
from epochal.spec.job import JobSpec
from epochal.tracking.recorder import MemoryRecorder
from epochal.training.control import Noted, NullControl, Report
from epochal.training.fit import FitResult, fit
from epochal.training.pack import Member, Packed, fit_pack
from epochal.training.segment import WHOLE, Segment
from epochal.training.setup import Setup
from epochal.training.worker import Worker
from epochal.units import Interval

CLOSE = 1e-4
UNSAVED = Segment(saved=False)
"""A checkpoint takes longer than all steps of these trainings."""
UNWRITTEN = Segment(saved=False, until=Interval(7, "steps"))
"""Final weights do too."""


class Noisy(TensorSplit):
    """Adds noise to what is read of it."""

    def fetch(self, indices: Sequence[int]) -> Batch:
        batch = super().fetch(indices)
        return {**batch, "input": batch["input"] + torch.rand(batch["input"].shape)}


@dataclass
class Control(NullControl):
    """Stops after so many steps."""

    stop_after: int | None = None

    def __post_init__(self) -> None:
        self.reports: list[Report] = []
        self.step = 0

    def stop_requested(self) -> bool:
        return self.stop_after is not None and self.step >= self.stop_after

    def tick(self, phase: str, step: int) -> None:
        self.step = max(self.step, step)

    def report(self, report: Report) -> None:
        self.reports.append(report)

    @property
    def notes(self) -> list[str]:
        return [report.note for report in self.reports if isinstance(report, Noted)]


def made(job: JobSpec, **changes: Any) -> Setup:
    """As ``prepare`` makes it, of the pieces."""
    built = {
        "optimizer": partial(build_optimizer, job.train.optimizer),
        "lr_factor": build_lr_schedule(job.train.lr_schedule),
        **changes,
    }
    return pieces.setup(job, built.pop("build", pieces.mlp), **built)


@dataclass
class Trained:
    """A training that has ended, in its folder."""

    folder: Path
    history: dict[str, list[tuple[int, float]]]
    outcome: FitResult | Exception
    notes: Sequence[str] = ()

    def curve(self, name: str) -> list[tuple[int, float]]:
        return self.history.get(name, [])


def alone(setup: Setup, folder: Path, segment: Segment = WHOLE, stop_after: int | None = None) -> Trained:
    recorder = MemoryRecorder()
    try:
        outcome: FitResult | Exception = fit(setup, Worker(), folder, recorder, Control(stop_after), segment)
    except EpochalError as error:
        outcome = error
    return Trained(folder, recorder.history, outcome)


def packed(
    setups: Sequence[Setup], folder: Path, segment: Segment = WHOLE, **stops: int
) -> tuple[list[Trained], Packed]:
    controls = [Control(stops.get(f"stop{number}")) for number in range(len(setups))]
    recorders = [MemoryRecorder() for _ in setups]
    members = [
        Member(setup, folder / str(number), recorders[number], controls[number], segment)
        for number, setup in enumerate(setups)
    ]
    found = fit_pack(members, Worker())
    columns = zip(members, recorders, found.outcomes, controls, strict=True)
    return [Trained(one.folder, kept.history, out, control.notes) for one, kept, out, control in columns], found


def assert_same(ours: Trained, reference: Trained) -> None:
    """Step by step, and in what is left of it."""
    assert [step for step, _ in ours.curve("train/loss")] == [step for step, _ in reference.curve("train/loss")]
    for name in {"train/loss", "train/lr", "train/grad_norm", "val/loss", "epoch"} | set(reference.history):
        if not name.startswith("perf/"):
            assert ours.curve(name) == [(step, pytest.approx(x, CLOSE, 1e-6)) for step, x in reference.curve(name)], (
                name
            )
    assert type(ours.outcome) is type(reference.outcome)
    if isinstance(reference.outcome, Exception):
        assert ours.outcome.args == pytest.approx(reference.outcome.args, nan_ok=True)  # type: ignore[union-attr]
        return
    assert replace(ours.outcome, metrics={}, best=None) == replace(reference.outcome, metrics={}, best=None)
    if reference.outcome.weights is not None:
        theirs = load_file(reference.folder / reference.outcome.weights)
        torch.testing.assert_close(load_file(ours.folder / reference.outcome.weights), theirs, rtol=1e-3, atol=5e-4)


def assert_as_alone(setups: Sequence[Any], folder: Path, segment: Segment = UNSAVED) -> Packed:
    """``setups``: functions that make them, because a training changes its model."""
    ours, found = packed([make() for make in setups], folder / "pack", segment)
    for number, make in enumerate(setups):
        assert_same(ours[number], alone(make(), folder / f"alone{number}", segment))
    return found
