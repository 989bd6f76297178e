"""Trainings on one worker; those of several are in tests/integration."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torchmetrics
from safetensors.torch import load_file
from torch import nn
from torchmetrics import Metric, MetricCollection

import training_pieces as pieces
from epochal.catalog.build import build_optimizer
from epochal.catalog.data import Batch, DataInfo, Field, LoadedData, SampleSplit, TensorSplit
from epochal.catalog.optimizers import OPTIMIZERS
from epochal.errors import CheckpointError, EpochalError, NonFiniteLossError, SpecError, TrainingError
from epochal.spec.job import JobSpec
from epochal.tracking.recorder import MemoryRecorder
from epochal.training import checkpoint, window
from epochal.training.control import Noted, NullControl, Phase, Progress, Report
from epochal.training.fit import FitResult, fit
from epochal.training.segment import RESUMED, WHOLE
from epochal.training.setup import prepare
from epochal.training.worker import Worker

History = dict[str, list[tuple[int, float]]]


class Watched(NullControl):
    def __init__(self) -> None:
        self.ticks: list[tuple[Phase, int]] = []
        self.reports: list[Report] = []

    def tick(self, phase: Phase, step: int) -> None:
        self.ticks.append((phase, step))

    def report(self, report: Report) -> None:
        self.reports.append(report)


def train(job: JobSpec, folder: Path, resume: bool = False, **changes: Any) -> tuple[FitResult, History]:
    recorder = MemoryRecorder()
    setup = pieces.setup(job, changes.pop("build", pieces.mlp), **changes)
    return fit(setup, Worker(), folder, recorder, NullControl(), RESUMED if resume else WHOLE), recorder.history


def test_metrics_of_every_step_and_validation(tmp_path: Path) -> None:
    result, history = train(pieces.spec(epochs=3, clip_grad_norm=1.0), tmp_path)
    assert [step for step, _ in history["train/loss"]] == list(range(1, 13))
    assert history["train/lr"][0] == (1, 0.01)
    assert history["train/lr"][-1] == (12, pytest.approx(0.01 / 12))
    assert len(history["train/grad_norm"]) == 12
    assert [step for step, _ in history["val/loss"]] == [4, 8, 12]
    assert history["epoch"] == [(4, 1.0), (8, 2.0), (12, 3.0)]
    parts = ("step", "data", "forward_backward", "optimizer")
    for name in ["perf/samples_per_second", *(f"perf/{part}_seconds" for part in parts)]:
        assert all(value > 0 for _, value in history[name])
    step, data, passes, update = (history[f"perf/{part}_seconds"][-1][1] for part in parts)
    assert data + passes + update <= step
    assert result == FitResult(
        state="completed",
        step=12,
        total_steps=12,
        epochs=3.0,
        metrics=result.metrics,
        best=None,
        early_stopped=False,
        weights="model/weights.safetensors",
    )
    assert result.metrics["val/loss"] == history["val/loss"][-1][1]


def test_steps_instead_of_epochs_end_with_a_validation(tmp_path: Path) -> None:
    result, history = train(pieces.spec(epochs=None, steps=6), tmp_path)
    assert (result.step, result.epochs) == (6, 1.5)
    assert [step for step, _ in history["val/loss"]] == [4, 6]


def test_progress_and_ticks(tmp_path: Path) -> None:
    control, job = Watched(), pieces.spec(epochs=2)
    fit(pieces.setup(job), Worker(), tmp_path, MemoryRecorder(), control)
    assert {step for phase, step in control.ticks if phase == "train"} == set(range(9))
    assert {phase for phase, _ in control.ticks} == {"setup", "train", "validate", "checkpoint", "export"}
    progress = [report for report in control.reports if isinstance(report, Progress)]
    assert progress[0].step == 1
    assert (progress[-1].step, progress[-1].total_steps, progress[-1].epochs) == (8, 8, 2.0)
    assert {"train/loss", "val/loss"} <= progress[-1].metrics.keys()


def test_learns(tmp_path: Path) -> None:
    result, _ = train(pieces.spec(epochs=10, validate_every="10ep"), tmp_path, data=pieces.data(200, 100))
    assert result.metrics["val/accuracy"] > 0.9


def test_what_a_task_counts_is_counted_in_training_and_in_validation(tmp_path: Path) -> None:
    """Four tokens a sample, given as a plain number: the means are those of samples that count for one."""
    plain, tokens = (
        train(pieces.spec(), tmp_path / type(task).__name__, task=task)
        for task in (pieces.Classification(), pieces.Tokens())
    )
    for name in ("train/loss", "val/loss"):
        expected = [value for _, value in plain[1][name]]
        assert [value for _, value in tokens[1][name]] == pytest.approx(expected, rel=1e-5)


def test_a_batch_in_which_nothing_counts_has_no_loss_and_changes_nothing(tmp_path: Path) -> None:
    job = pieces.spec(epochs=1)
    result, history = train(job, tmp_path, task=pieces.Uncounted(), optimizer=pieces.sgd)
    assert [value for _, value in history["train/loss"]] == [0, 0, 0, 0]
    assert result.metrics["val/loss"] == 0
    before = pieces.setup(job).model.state_dict()
    torch.testing.assert_close(load_file(tmp_path / "model" / "weights.safetensors"), before, rtol=0, atol=0)


def test_a_batch_norm_that_would_see_a_single_sample_is_refused_at_the_first_step(tmp_path: Path) -> None:
    recorder = MemoryRecorder()
    with pytest.raises(SpecError, match=r"leaves a batch of a single sample.*25 samples") as caught:
        fit(pieces.setup(pieces.spec(), pieces.normed_mlp), Worker(), tmp_path, recorder, NullControl())
    assert [problem.path for problem in caught.value.problems] == ["train.global_batch_size"]
    assert "train/loss" not in recorder.history
    with pytest.raises(SpecError, match="splits the batch that the batch norm 1 normalises"):
        train(pieces.spec(micro_batch_size=1), tmp_path, build=pieces.normed_mlp, data=pieces.data(26))
    train(pieces.spec(), tmp_path, build=pieces.normed_cnn)  # a sample has many pixels


class Pair(pieces.Classification):
    def loss(self, model: nn.Module, batch: Batch) -> Any:
        return tuple(super().loss(model, batch))


def test_a_task_that_returns_no_loss_is_told_what_to_return(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="returned a tuple") as caught:
        train(pieces.spec(), tmp_path, task=Pair())
    assert "Loss(total, weight, outputs)" in caught.value.hint


def test_ends_early_where_nothing_gets_better(tmp_path: Path) -> None:
    stopping = {"metric": "val/loss", "mode": "min", "patience": 2}
    job = pieces.spec(epochs=50, early_stopping=stopping)
    result, history = train(job, tmp_path, task=pieces.AtTheAnswer())
    assert (result.state, result.early_stopped, result.step) == ("completed", True, 12)
    assert [step for step, _ in history["val/loss"]] == [4, 8, 12]
    assert (tmp_path / "model" / "weights.safetensors").exists()
    again, history = train(job, tmp_path, resume=True, task=pieces.AtTheAnswer())
    assert (again.step, again.early_stopped) == (12, True)
    assert "train/loss" not in history


def test_unknown_metric_ends_the_training(tmp_path: Path) -> None:
    stopping = {"metric": "val/acuracy", "mode": "max"}
    with pytest.raises(TrainingError, match="val/acuracy"):
        train(pieces.spec(early_stopping=stopping), tmp_path)


class Unlucky(Metric):
    """Fails in ``update`` or in ``compute``; the tests ask for both."""

    full_state_update = False

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def update(self, outputs: torch.Tensor, target: torch.Tensor) -> None:
        if self.where == "update":
            raise ValueError("no sample of class 2")

    def compute(self) -> torch.Tensor:
        raise ValueError("no sample of class 2")


class UnluckyTask(pieces.Classification):
    def __init__(self, where: str) -> None:
        self.where = where

    def metrics(self) -> MetricCollection:
        metrics = super().metrics()
        metrics.add_metrics({"unlucky": Unlucky(self.where)})
        return metrics


@pytest.mark.parametrize("where", ["update", "compute"])
def test_a_metric_that_fails_is_left_out_and_said_once(tmp_path: Path, where: str) -> None:
    recorder, control = MemoryRecorder(), Watched()
    setup = pieces.setup(pieces.spec(epochs=3), task=UnluckyTask(where))
    result = fit(setup, Worker(), tmp_path, recorder, control)
    assert result.state == "completed"
    assert [step for step, _ in recorder.history["val/accuracy"]] == [4, 8, 12]
    assert "val/unlucky" not in recorder.history
    told = [report.note for report in control.reports if isinstance(report, Noted)]
    assert told == ["val/unlucky is left out: ValueError: no sample of class 2"]


class ByClass(pieces.Classification):
    def metrics(self) -> MetricCollection:
        metrics = super().metrics()
        metrics.add_metrics({"recall": torchmetrics.classification.MulticlassRecall(pieces.CLASSES, average=None)})
        return metrics


def test_a_metric_of_several_values_is_left_out_and_said_once(tmp_path: Path) -> None:
    recorder, control = MemoryRecorder(), Watched()
    fit(pieces.setup(pieces.spec(epochs=3), task=ByClass()), Worker(), tmp_path, recorder, control)
    assert [step for step, _ in recorder.history["val/accuracy"]] == [4, 8, 12]
    assert "val/recall" not in recorder.history
    told = [report.note for report in control.reports if isinstance(report, Noted)]
    assert told == ["val/recall is left out: it has 3 values, and a curve is of one"]


def test_a_metric_that_fails_and_is_waited_for_ends_the_training_unless_it_is_done(tmp_path: Path) -> None:
    stopping = {"metric": "val/unlucky", "mode": "max"}
    with pytest.raises(TrainingError, match="val/unlucky"):
        train(pieces.spec(early_stopping=stopping), tmp_path / "early", task=UnluckyTask("compute"))
    late = pieces.spec(early_stopping=stopping, validate_every="9ep")
    result, _ = train(late, tmp_path / "late", task=UnluckyTask("compute"))
    assert (result.state, result.weights) == ("completed", "model/weights.safetensors")


def unreadable(index: int) -> Batch:
    raise OSError("val/7.png is cut off")


@pytest.mark.parametrize("every", ["1ep", "2ep", "9ep"])
def test_a_validation_that_fails_after_the_last_step_does_not_undo_the_training(tmp_path: Path, every: str) -> None:
    control, data = Watched(), pieces.data()
    broken = SampleSplit(4, unreadable)
    setup = pieces.setup(pieces.spec(epochs=2, validate_every=every), data=replace(data, validation=broken))
    if every == "1ep":
        with pytest.raises(EpochalError, match=r"sample \d cannot be read: val/7.png is cut off"):
            fit(setup, Worker(), tmp_path, MemoryRecorder(), control)
        return
    result = fit(setup, Worker(), tmp_path, MemoryRecorder(), control)
    assert (result.step, result.weights) == (8, "model/weights.safetensors")
    assert list(result.metrics) == ["train/loss"]
    told = [report.note for report in control.reports if isinstance(report, Noted)]
    assert len(told) == 1
    assert told[0].startswith("val/loss is left out: sample 0 cannot be read: val/7.png is cut off")


@pytest.mark.parametrize("metrics", [["mae", "r2", "rmse"], ["r2"]])
def test_a_metric_that_cannot_be_computed_does_not_end_the_training(tmp_path: Path, metrics: list[str]) -> None:
    (tmp_path / "t.csv").write_text("a,y\n0.0,0.0\n0.1,1.5\n0.2,3.0\n0.3,4.5\n0.4,6.0\n")
    data = {"name": "csv", "params": {"path": "t.csv", "target": "y"}}
    task = {"name": "regression", "params": {"metrics": metrics}}
    tree = {"version": 1, "name": "t", "model": {"name": "mlp"}, "data": data, "task": task, "train": {"epochs": 2}}
    recorder, control = MemoryRecorder(), Watched()
    fit(prepare(JobSpec.model_validate(tree), tmp_path), Worker(), tmp_path, recorder, control)
    measured = [name for name in sorted(recorder.history) if name.startswith("val/")]
    assert measured == ["val/loss", *(f"val/{name}" for name in metrics if name != "r2")]
    assert not [report for report in control.reports if isinstance(report, Noted)], "it was said at the start"


def test_without_validation_data_the_training_loss_is_what_is_known(tmp_path: Path) -> None:
    job = pieces.spec(objective__metric="train/loss", objective__mode="min")
    result, history = train(job, tmp_path, data=pieces.data(validation=0))
    assert result.best is not None
    assert not [name for name in history if name.startswith("val/")]


def test_best_checkpoint_is_kept_although_none_was_due(tmp_path: Path) -> None:
    job = pieces.spec(epochs=6, objective__metric="val/loss", objective__mode="min")
    result, history = train(job, tmp_path, data=pieces.data(60, 40))
    assert result.best is not None
    value, step = min((value, step) for step, value in history["val/loss"])
    assert result.best == (value, step)
    assert set(checkpoint.steps(tmp_path / "checkpoints")) == {step, result.step}


def test_loss_that_is_not_finite_is_no_curve(tmp_path: Path) -> None:
    split = pieces.samples(25)
    split.tensors["input"][:] = 1000
    recorder, job = MemoryRecorder(), pieces.spec()
    setup = pieces.setup(job, task=pieces.Poisoned(), data=replace(pieces.data(), train=split))
    with pytest.raises(NonFiniteLossError) as raised:
        fit(setup, Worker(), tmp_path, recorder, NullControl())
    assert (raised.value.step, raised.value.rank) == (1, 0)
    assert "train/loss" not in recorder.history
    assert checkpoint.steps(tmp_path / "checkpoints") == []


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_is_close_and_resumes_exactly(tmp_path: Path, precision: str) -> None:
    changed = {"epochs": 3, "clip_grad_norm": 1.0}
    full = dict(train(pieces.spec(**changed), tmp_path / "full")[1]["train/loss"])
    job = pieces.spec(**changed, precision=precision, checkpoint__every="5steps", checkpoint__keep={"latest": 9})
    unbroken = dict(train(job, tmp_path / "reduced")[1]["train/loss"])
    assert unbroken != full
    assert list(unbroken.values()) == pytest.approx(list(full.values()), rel=0.05)
    shutil.rmtree(tmp_path / "reduced" / "checkpoints" / checkpoint.name_of(12))
    resumed = dict(train(job, tmp_path / "reduced", resume=True)[1]["train/loss"])
    assert resumed == {step: loss for step, loss in unbroken.items() if step > 10}


def test_scale_of_fp16_is_in_the_checkpoint(tmp_path: Path) -> None:
    train(pieces.spec(precision="fp16", checkpoint__every="1ep"), tmp_path)
    (step,) = checkpoint.steps(tmp_path / "checkpoints")
    manifest = checkpoint.read(tmp_path / "checkpoints" / checkpoint.name_of(step))
    assert manifest.state["precision"]["scale"] == 65536
    assert manifest.state["precision"]["_growth_tracker"] == 8


def test_transfer_learning(tmp_path: Path) -> None:
    train(pieces.spec(), tmp_path / "first")
    first = load_file(tmp_path / "first" / "model" / "weights.safetensors")
    for source in ("", "model/weights.safetensors", "checkpoints/step-00000008"):
        job = pieces.spec(init_from=str(tmp_path / "first" / source), freeze=["0.*", "4.*"], epochs=1)
        folder = tmp_path / "second" / source.replace("/", "-")
        train(job, folder)
        second = load_file(folder / "model" / "weights.safetensors")
        for name, value in first.items():
            assert torch.equal(value, second[name]) == name.startswith(("0.", "4.")), name


def test_deterministic_gives_the_same_bits(tmp_path: Path) -> None:
    job = pieces.spec(deterministic=True)
    runs = [train(job, tmp_path / name, build=pieces.dropping_mlp)[1]["train/loss"] for name in "ab"]
    assert runs[0] == runs[1]
    assert not torch.are_deterministic_algorithms_enabled()


def test_time_is_an_interval_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "WINDOW_SECONDS", 0.0)
    job = pieces.spec(epochs=2, validate_every="1ms", checkpoint__every="1ms", checkpoint__keep={"latest": 100})
    _, history = train(job, tmp_path)
    assert len(history["val/loss"]) > 3
    assert len(checkpoint.steps(tmp_path / "checkpoints")) > 3


def test_job_spec_to_model(tmp_path: Path) -> None:
    """Everything by its name in the catalog."""
    job = JobSpec.model_validate(
        {
            "version": 1,
            "name": "digits",
            "model": {"name": "mlp", "params": {"hidden": [32]}},
            "data": {"name": "digits"},
            "train": {"epochs": 3, "lr_schedule": {"name": "cosine", "warmup": 0.1}, "optimizer": {"lr": 0.01}},
        }
    )
    setups = [prepare(job, tmp_path) for _ in range(2)]
    torch.testing.assert_close(setups[0].model.state_dict(), setups[1].model.state_dict())
    result = fit(setups[0], Worker(), tmp_path, MemoryRecorder(), NullControl())
    assert result.metrics["val/accuracy"] > 0.8


@pytest.mark.parametrize(
    "name",
    [  # that their state goes on is tried of each alone, by its contract
        pytest.param(name, marks=() if name in ("adafactor", "adamw", "lbfgs", "muon", "sgd") else pytest.mark.slow)
        for name in OPTIMIZERS.names()
    ],
)
def test_every_optimizer_goes_on_exactly(tmp_path: Path, name: str) -> None:
    job = pieces.spec(epochs=2, checkpoint__every="5steps", optimizer={"name": name}, checkpoint__keep={"latest": 9})
    optimizer = partial(build_optimizer, job.train.optimizer)
    unbroken = dict(train(job, tmp_path, optimizer=optimizer)[1]["train/loss"])
    shutil.rmtree(tmp_path / "checkpoints" / "step-00000008")
    resumed = dict(train(job, tmp_path, resume=True, optimizer=optimizer)[1]["train/loss"])
    assert resumed == {step: loss for step, loss in unbroken.items() if step > 5}


def test_another_optimizer_cannot_go_on(tmp_path: Path) -> None:
    train(pieces.spec(), tmp_path, optimizer=pieces.sgd)
    with pytest.raises(CheckpointError, match="is missing"):
        train(pieces.spec(epochs=3), tmp_path, resume=True)


def test_tokens_a_second_are_told_of_sequences_of_token_ids(tmp_path: Path) -> None:
    info = DataInfo(Field((5,), torch.int64, 7), Field((), torch.int64, pieces.CLASSES))
    data = LoadedData(TensorSplit(info.example(16)), None, info, "0", "made up")
    model = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(20, pieces.CLASSES))
    recorder = MemoryRecorder()
    fit(pieces.setup(pieces.spec(), model=model, data=data), Worker(), tmp_path, recorder, NullControl())
    rates = zip(*(recorder.history[f"perf/{what}_per_second"] for what in ("samples", "tokens")), strict=True)
    for (step, samples), (same, tokens) in rates:
        assert (same, tokens) == (step, pytest.approx(5 * samples))
