"""What a training leaves: the weights of its last and of its best step, and what they do on the test samples."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

import training_pieces as pieces
from epochal.spec.job import JobSpec
from epochal.tracking.recorder import MemoryRecorder
from epochal.training import ending, weights
from epochal.training.control import Noted, NullControl, Report
from epochal.training.fit import FitResult, fit
from epochal.training.segment import RESUMED, Segment
from epochal.training.worker import Worker

TESTED = pieces.samples(9, seed=5)


class Listener(NullControl):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def report(self, report: Report) -> None:
        if isinstance(report, Noted):
            self.notes.append(report.note)


class Once(pieces.Classification):
    """Counts the batches that it is asked for in evaluation."""

    seen = 0

    def loss(self, model: nn.Module, batch: Any) -> Any:
        self.seen += not model.training
        return super().loss(model, batch)


def spec(**train: Any) -> JobSpec:
    """The objective is at its best in the first of three epochs: the training loss, to be as high as can be."""
    job = pieces.spec(epochs=3, **train)
    objective = {"metric": "val/loss", "mode": "max"}
    return JobSpec.model_validate({**job.model_dump(mode="json", exclude_unset=True), "objective": objective})


def trained(
    job: JobSpec, folder: Path, segment: Segment = RESUMED, **changes: Any
) -> tuple[FitResult, MemoryRecorder, list[str]]:
    recorder, control = MemoryRecorder(), Listener()
    made = pieces.setup(job, **{"data": replace(pieces.data(), test=TESTED), **changes})
    result = fit(made, Worker(), folder, recorder, control, segment)
    return result, recorder, control.notes


def loss_of(found: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> float:
    model = pieces.mlp()
    model.load_state_dict(dict(found))
    return F.cross_entropy(model.eval()(rows["input"]), rows["target"]).item()


def rows(split: Any) -> Mapping[str, Tensor]:
    return split.fetch(range(len(split)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("average", [None, {"decay": 0.8}], ids=["plain", "ema"])
@pytest.mark.parametrize("export", ["last", "best"])
def test_the_weights_that_are_exported_are_tested(tmp_path: Path, export: str, average: Any) -> None:
    result, recorder, notes = trained(spec(export=export, average=average), tmp_path)
    assert result.best is not None
    assert result.best[1] == 4
    exported = load_file(tmp_path / weights.FILE)
    assert result.metrics["test/loss"] == pytest.approx(loss_of(exported, rows(TESTED)), rel=1e-5)
    assert recorder.history["test/loss"] == [(12, result.metrics["test/loss"])]
    assert recorder.history["test/accuracy"] == [(12, result.metrics["test/accuracy"])]
    best = exported if export == "best" else load_file(tmp_path / weights.BEST)
    assert loss_of(best, rows(pieces.data().validation)) == pytest.approx(result.best[0], rel=1e-5)
    assert (tmp_path / weights.BEST).exists() == (export == "last")
    assert (tmp_path / weights.LAST).exists() == (export == "best" or average is not None)
    assert any("weights of step 4, where val/loss was" in note for note in notes)


def test_best_beside_last_changes_nothing_else(tmp_path: Path) -> None:
    trained(spec(export="best"), tmp_path / "best")
    trained(spec(), tmp_path / "last")
    assert (tmp_path / "best" / weights.LAST).read_bytes() == (tmp_path / "last" / weights.FILE).read_bytes()
    assert (tmp_path / "best" / weights.FILE).read_bytes() == (tmp_path / "last" / weights.BEST).read_bytes()


def test_nothing_lies_beside_the_last_weights_where_they_are_the_best(tmp_path: Path) -> None:
    job = spec(export="best")
    job = job.model_copy(update={"objective": job.objective and job.objective.model_copy(update={"mode": "min"})})
    _, _, notes = trained(job, tmp_path)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["test.json", "weights.safetensors"]
    assert notes == []


def test_without_the_best_checkpoint_the_last_weights_are_exported_and_it_is_said(tmp_path: Path) -> None:
    class Losing(Listener):
        def report(self, report: Report) -> None:
            super().report(report)
            shutil.rmtree(tmp_path / "checkpoints" / "step-00000004", ignore_errors=True)

    control = Losing()
    fit(pieces.setup(spec(export="best")), Worker(), tmp_path, MemoryRecorder(), control, RESUMED)
    assert not (tmp_path / weights.LAST).exists()
    assert [note for note in control.notes if note.startswith("the weights of the best step, 4, are not kept: ")]


def test_tied_weights_have_one_mean(tmp_path: Path) -> None:
    def tied() -> nn.Module:
        model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3))
        model[1].weight = model[0].weight
        return model

    trained(spec(export="best", average={"decay": 0.8}), tmp_path, model=tied())
    found = load_file(tmp_path / weights.FILE)
    assert torch.equal(found["0.weight"], found["1.weight"])
    assert not torch.equal(found["0.weight"], load_file(tmp_path / weights.LAST)["0.weight"])


def test_a_job_that_died_after_its_test_does_not_measure_it_again(tmp_path: Path) -> None:
    task = Once()
    first, recorder, _ = trained(spec(), tmp_path, task=task)
    measured, again = task.seen, Once()
    second, repeated, _ = trained(spec(), tmp_path, task=again)
    assert measured == 3 * 2 + 2
    assert again.seen == 0
    assert second.metrics == first.metrics
    assert repeated.history["test/loss"] == recorder.history["test/loss"]


@pytest.mark.parametrize("content", ["", "[]", '{"weights": "of others", "metrics": {"test/loss": 0}}'])
def test_what_was_measured_of_other_weights_is_measured_anew(tmp_path: Path, content: str) -> None:
    first, _, _ = trained(spec(), tmp_path)
    (tmp_path / ending.TESTED).write_text(content)
    second, _, _ = trained(spec(), tmp_path)
    assert second.metrics == first.metrics
    assert json.loads((tmp_path / ending.TESTED).read_text())["metrics"]["test/loss"] == first.metrics["test/loss"]


def test_trials_leave_test_samples_and_best_steps_alone(tmp_path: Path) -> None:
    task = Once()
    result, recorder, notes = trained(spec(), tmp_path, Segment(trial=True), task=task)
    assert result.weights is not None
    assert task.seen == 3 * 2
    assert not [name for name in (*result.metrics, *recorder.history) if name.startswith("test/")]
    assert not (tmp_path / weights.BEST).exists()
    assert notes == []


def test_a_test_that_fails_does_not_undo_the_training(tmp_path: Path) -> None:
    damaged = pieces.samples(9, seed=5)
    damaged.tensors["target"] += 7
    result, _, notes = trained(spec(), tmp_path, data=replace(pieces.data(), test=damaged))
    assert result.state == "completed"
    assert result.weights is not None
    assert [note for note in notes if note.startswith("test/loss is left out: IndexError")]


def test_the_first_step_is_told_what_it_starts_from(tmp_path: Path) -> None:
    trained(spec(), tmp_path / "base")
    other = nn.Sequential(*list(pieces.mlp())[:-1], nn.Linear(8, 5))
    notes = trained(spec(init_from=str(tmp_path / "base")), tmp_path / "other", model=other)[2]
    told = "6.weight (3 x 8 in the file, 5 x 8 in the model), 6.bias (3 in the file, 5 in the model)"
    assert notes[0] == f"weights to start from: 4 tensors loaded; 2 of another shape: {told}"
