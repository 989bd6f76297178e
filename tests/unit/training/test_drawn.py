"""Pictures of a training: which samples are drawn, when, and that nothing else depends on them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import training_pieces as pieces
from epochal.catalog.task import Samples
from epochal.spec.job import JobSpec
from epochal.tracking.recorder import MemoryRecorder
from epochal.training import pictures
from epochal.training.control import Noted, NullControl, Report
from epochal.training.fit import fit
from epochal.training.pictures import Keeper
from epochal.training.segment import WHOLE, Segment
from epochal.training.worker import Worker


class Drawing(pieces.Classification):
    """Draws a white picture, and writes which samples it was given and what its model makes of them now."""

    def __init__(self) -> None:
        self.given: list[Samples] = []

    def pictures(self, samples: Samples) -> Mapping[str, Any]:
        self.given.append(samples)
        assert samples.model is not None
        assert not samples.model.training
        torch.testing.assert_close(samples.model(samples.batch["input"]), samples.outputs)
        return {"white": Image.new("RGB", (30, 30), "white"), "words": "so many"}


class Failing(pieces.Classification):
    def pictures(self, samples: Samples) -> Mapping[str, Any]:
        raise ValueError("no colours")


class Listener(NullControl):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def report(self, report: Report) -> None:
        if isinstance(report, Noted):
            self.notes.append(report.note)


def spec(mode: str, **train: Any) -> JobSpec:
    job = pieces.spec(epochs=3, **train)
    objective = {"metric": "val/loss", "mode": mode}
    return JobSpec.model_validate({**job.model_dump(mode="json", exclude_unset=True), "objective": objective})


def trained(job: JobSpec, folder: Path, task: Any, segment: Segment = WHOLE) -> tuple[MemoryRecorder, list[str]]:
    recorder, control = MemoryRecorder(), Listener()
    fit(pieces.setup(job, task=task), Worker(), folder, recorder, control, segment)
    return recorder, control.notes


def drawn(folder: Path) -> list[str]:
    made = folder / "artifacts" / "pictures"
    return sorted(path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file())


@pytest.mark.parametrize("average", [None, {"decay": 0.8}], ids=["plain", "ema"])
@pytest.mark.parametrize("export", ["last", "best"])
def test_best_and_last_are_drawn_with_their_own_weights(tmp_path: Path, export: str, average: Any) -> None:
    task = Drawing()
    trained(spec("max", export=export, average=average), tmp_path, task)  # the first of three is the best
    assert drawn(tmp_path) == ["best/white.png", "best/words.txt", "last/white.png", "last/words.txt"]
    assert len(task.given) == 2
    assert (tmp_path / "artifacts/pictures/best/words.txt").read_text().startswith("step 4, val/loss ")
    assert (tmp_path / "artifacts/pictures/last/words.txt").read_text().endswith("\n\nso many\n")


def test_the_last_that_is_the_best_is_drawn_once(tmp_path: Path) -> None:
    task = Drawing()
    trained(spec("min"), tmp_path, task)
    assert drawn(tmp_path) == ["best/white.png", "best/words.txt"]
    (samples,) = task.given
    assert len(samples.outputs) == len(samples.batch["input"]) == 11
    assert samples.classes == ("0", "1", "2")


def test_those_of_a_long_training_are_drawn_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(pictures, "SHARE", 1e9)
    task = Drawing()
    trained(spec("min"), tmp_path, task)
    assert len(task.given) == 3


@pytest.mark.parametrize("task", [Drawing, Failing])
def test_the_curves_are_those_without_pictures(tmp_path: Path, task: Any) -> None:
    plain, _ = trained(spec("min"), tmp_path / "plain", pieces.Classification())
    other, notes = trained(spec("min"), tmp_path / "drawn", task())
    for name in ("train/loss", "val/loss", "val/accuracy"):
        assert other.history[name] == plain.history[name]
    assert notes == (["pictures of the validation are left out: ValueError: no colours"] if task is Failing else [])


def test_trials_draw_nothing(tmp_path: Path) -> None:
    trained(spec("min"), tmp_path, Drawing(), Segment(trial=True))
    assert drawn(tmp_path) == []


@pytest.mark.parametrize(("size", "batches"), [(1000, 7), (256, 300), (10, 3), (5000, 64)])
def test_samples_are_taken_evenly(size: int, batches: int) -> None:
    keeper = Keeper(size)
    for batch in torch.arange(size).split(batches):
        keeper.add({"input": batch}, {"doubled": 2 * batch, "plain": torch.tensor(1)})
    found = torch.cat([batch["input"] for batch in keeper.kept.batches])
    stride = -(-size // min(256, size))
    assert torch.equal(found, torch.arange(0, size, stride))
    assert torch.equal(torch.cat([one["doubled"] for one in keeper.kept.outputs]), 2 * found)


def test_large_samples_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MOST_BYTES", 100)
    keeper = Keeper(30)
    for batch in torch.zeros(30, 10).split(2):
        keeper.add({"input": batch}, batch)
    assert sum(len(batch["input"]) for batch in keeper.kept.batches) == 2
