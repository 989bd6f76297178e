"""Tasks that look at the model between steps, and models that act: on any number of workers, and after a stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import Scripted

import played_pieces
import training_pieces as pieces
from epochal.catalog.architectures.dec import Dec, DecParams
from epochal.catalog.build import build_task
from epochal.errors import SpecError
from epochal.spec.job import JobSpec
from epochal.spec.section import Component
from epochal.tracking.recorder import MemoryRecorder
from epochal.training.check import check
from epochal.training.fit import fit
from epochal.training.segment import RESUMED
from epochal.training.setup import Setup
from epochal.training.worker import Worker
from training_gang import TestGang

KINDS = ["dqn", pytest.param("actor-critic", marks=pytest.mark.slow), "dec"]
ENDLESS = {"epochs": None, "steps": 24, "validate_every": "8steps", "checkpoint__every": "100steps"}


def made(kind: str, job: JobSpec) -> Setup:
    if kind != "dec":
        return played_pieces.setup(job, kind)
    data = pieces.data(size=41)
    torch.manual_seed(0)
    model = Dec(DecParams(hidden=[8], latent=2), values=pieces.FEATURES, clusters=pieces.CLASSES)
    params = {"pretrain_steps": 8, "target_every": 5, "reconstruction": 0.1}
    task = build_task(Component(name="clustering", params=params), Component(name="mine"), data.info)
    return pieces.setup(job, lambda: model, data=data, task=task)


def spec(workers: int, **changes: Any) -> JobSpec:
    return pieces.spec(global_batch_size=24, resources__workers=workers, **ENDLESS, **changes)


def trained(worker: Worker, kind: str, folder: Path, stop_after: int | None) -> dict[str, list[tuple[int, float]]]:
    recorder, control = MemoryRecorder(), Scripted(stop_after)
    fit(made(kind, spec(worker.world_size)), worker, folder, recorder, control, RESUMED)
    return {name: values for name, values in recorder.history.items() if name.startswith(("train/", "val/"))}


@pytest.mark.parametrize("kind", KINDS)
def test_as_on_one_worker_and_exactly_on_after_a_stop(gang: TestGang, tmp_path: Path, kind: str) -> None:
    alone = gang.run(1, trained, kind, tmp_path / "alone", None)[0]
    whole = gang.run(2, trained, kind, tmp_path / "whole", None)[0]
    assert set(alone) == set(whole)
    for name, values in alone.items():
        assert [value for _, value in whole[name]] == pytest.approx([value for _, value in values], rel=1e-3, abs=1e-5)
    stopped = gang.run(2, trained, kind, tmp_path / "broken", 11)[0]
    resumed = gang.run(2, trained, kind, tmp_path / "broken", None)[0]
    assert len(resumed["train/loss"]) < 24
    for name, values in whole.items():
        assert dict(stopped.get(name, [])) | dict(resumed.get(name, [])) == dict(values), name


def test_shards_are_refused() -> None:
    job = spec(2, resources__strategy="fsdp")
    for kind in ("dqn", "dec"):
        setup = made(kind, job)
        with pytest.raises(SpecError, match="fsdp shards them"):
            check(job, setup.data, setup.task)
