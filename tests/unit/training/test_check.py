"""What is knowable before a training is told before it: by `plan`, and by workers at their start, in the same words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics
from safetensors.torch import save_file
from torchmetrics.wrappers import ClasswiseWrapper

import training_pieces as pieces
from epochal.catalog.build import build_task, load_data
from epochal.catalog.data import DataInfo, Field, LoadedData, SampleSplit, TensorSplit
from epochal.errors import CodeError, SpecError
from epochal.spec.job import JobSpec
from epochal.training.check import Checked, check
from epochal.training.plan import plan
from epochal.training.setup import prepare

SEEN = "a,y\n" + "".join(f"{index},{'no' if index % 2 else 'yes'}\n" for index in range(10))
REAL = "a,y\n" + "".join(f"{index},{index * 1.5}\n" for index in range(10))
FIVE = "a,y\n" + "".join(f"0.{index},{index * 1.5}\n" for index in range(5))
HELD_OUT = "a,y\n1,no\n2,maybe\n"
VAL_AUROC = {"metric": "val/auroc", "mode": "max"}


def spec(params: dict[str, Any] | None = None, **changes: Any) -> JobSpec:
    data = {"name": "csv", "params": {"path": "t.csv", "target": "y", **(params or {})}}
    train = {"epochs": 1, "global_batch_size": 4, **changes.pop("train", {})}
    model = {"name": "mlp", "params": {"hidden": [4]}}
    return JobSpec.model_validate({"version": 1, "name": "t", "model": model, "data": data, **changes, "train": train})


def goal(metric: str) -> dict[str, str]:
    return {"metric": metric, "mode": "max"}


@pytest.mark.parametrize(
    ("table", "job", "path", "message"),
    [
        ("a,y\n1,yes\n2,yes\n3,yes\n4,yes\n5,yes\n", spec(), "data", "the target y has one class"),
        (
            SEEN,
            spec({"validation": 0}, objective=goal("val/accuracy")),
            "objective.metric",
            "val/accuracy needs validation data, and there is none: data.params.validation is 0",
        ),
        (
            SEEN,
            spec({"validation": 0}, train={"early_stopping": goal("val/loss")}),
            "train.early_stopping.metric",
            "val/loss needs validation data, and there is none: data.params.validation is 0",
        ),
        (
            "a,y\n1,yes\n2,no\n",
            spec(objective=goal("val/loss")),
            "objective.metric",
            "val/loss needs validation data, and there is none: this dataset has no sample for it",
        ),
        (SEEN, spec(objective=goal("val/acuracy")), "objective.metric", "'val/acuracy' .*did you mean 'val/accuracy'"),
        (SEEN, spec(objective=goal("val/f1")), "objective.metric", r"add it: task.params.metrics: \[accuracy, f1\]"),
        (
            SEEN,
            spec(train={"early_stopping": goal("train/accuracy")}),
            "train.early_stopping.metric",
            "there is no metric 'train/accuracy'",
        ),
        (
            SEEN,
            spec(train={"lr_schedule": {"name": "reduce_on_plateau", **goal("val/acuracy")}}),
            "train.lr_schedule.metric",
            "'val/acuracy' .*did you mean 'val/accuracy'",
        ),
        (REAL, spec(objective=goal("val/accuracy")), "objective.metric", "there is no metric 'val/accuracy'"),
        (
            FIVE,
            spec(objective=goal("val/r2")),
            "objective.metric",
            "val/r2 cannot be computed: it needs two validation",
        ),
        (
            "a,y\n1,no\n2,yes\n3,yes\n4,yes\n5,yes\n6,yes\n",
            spec(task={"name": "classification", "params": {"metrics": ["auroc"]}}, objective=VAL_AUROC),
            "objective.metric",
            "val/auroc cannot be computed: it needs two classes among the validation samples",
        ),
        (
            FIVE,
            spec(resources={"workers": {"min": 1, "max": 5}}, train={"global_batch_size": 8}),
            "resources.workers",
            "expected at most 4, a training sample for each, got 5",
        ),
    ],
)
def test_what_could_not_be_trained_is_refused_by_plan_and_by_workers_alike(
    tmp_path: Path, table: str, job: JobSpec, path: str, message: str
) -> None:
    (tmp_path / "t.csv").write_text(table)
    (tmp_path / "held.csv").write_text(HELD_OUT)
    with pytest.raises(SpecError, match=message) as planned:
        plan(job, tmp_path)
    with pytest.raises(SpecError, match=message) as started:
        prepare(job, tmp_path)
    assert [problem.path for problem in planned.value.problems] == [path]
    assert planned.value.problems == started.value.problems


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(SEEN)
    job = spec({"validation": 0}, objective=goal("val/accuracy"), train={"early_stopping": goal("val/loss")})
    with pytest.raises(SpecError) as caught:
        plan(job, tmp_path)
    assert [one.path for one in caught.value.problems] == ["objective.metric", "train.early_stopping.metric"]


@pytest.mark.parametrize(
    ("table", "job", "left_out", "notes"),
    [
        (SEEN, spec(), [], []),
        (SEEN, spec({"validation": 0}, objective=goal("train/loss")), [], []),
        (REAL, spec(objective=goal("val/r2")), [], []),
        (FIVE, spec(), ["r2"], ["val/r2 is left out: it needs two validation samples, and there is one"]),
        (
            "a,y\n" + "".join(f"{index},2.5\n" for index in range(10)),
            spec(),
            ["r2"],
            ["val/r2 is left out: it needs validation targets that differ, and all are the same"],
        ),
        (
            SEEN,
            spec({"validation_path": "held.csv"}),
            [],
            ["1 of 2 validation samples are of classes that no training sample has: sample 1 is of class 0"],
        ),
        (
            SEEN,
            spec(train={"global_batch_size": 64}),
            [],
            ["train.global_batch_size is 64, and there are 8 training samples: each step takes all"],
        ),
        (
            SEEN,
            spec(resources={"workers": 3}),
            [],
            ["there are 2 validation samples for 3 workers: each goes through all of them"],
        ),
    ],
)
def test_what_can_be_trained_is_not_refused_and_what_differs_is_noted(
    tmp_path: Path, table: str, job: JobSpec, left_out: list[str], notes: list[str]
) -> None:
    (tmp_path / "t.csv").write_text(table)
    (tmp_path / "held.csv").write_text(HELD_OUT)
    checked = prepare(job, tmp_path).checked
    assert (list(checked.left_out), list(checked.notes)) == (left_out, notes)
    assert list(plan(job, tmp_path).notes) == notes


def made(targets: Sequence[float], validation: Sequence[float] = (), classes: int | None = None) -> LoadedData:
    """As a function of the user's own makes it."""

    def split(values: Sequence[float]) -> TensorSplit:
        target = torch.tensor(values, dtype=torch.float32 if classes is None else torch.int64)
        return TensorSplit({"input": torch.ones(len(values), 2), "target": target})

    info = DataInfo(Field((2,)), Field((), torch.float32 if classes is None else torch.int64, classes))
    return LoadedData(split(targets), split(validation) if validation else None, info, "0", "mine")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (made([0, 1, 2], classes=2), "1 of 3 targets of the train samples are not classes from 0 to 1: sample 2 has 2"),
        (made([0, 1], [-1, 0], classes=2), "targets of the validation samples are not classes.*: sample 0 has -1"),
        (
            made([1.0, float("nan"), 3.0]),
            "1 of 3 targets of the train samples are not finite numbers: sample 1 has nan",
        ),
        (made([1.0, 2.0], [float("inf")]), "targets of the validation samples are not finite.*: sample 0 has inf"),
        (made([3, 3, 3], classes=10), "the target has one class"),
        (made([], classes=2), "there are no training samples"),
    ],
)
def test_targets_of_the_users_own_data_are_looked_at(data: LoadedData, message: str) -> None:
    job = spec(train={"global_batch_size": 1})
    with pytest.raises(SpecError, match=message):
        check(job, data, build_task(None, job.data, data.info))


def test_fields_that_the_samples_do_not_have_are_told() -> None:
    data = made([1.0, 2.0])
    data = replace(data, info=replace(data.info, more={"length": Field((), torch.int64)}))
    job = spec(train={"global_batch_size": 1})
    with pytest.raises(SpecError, match="the fields length, and the train samples have input, target"):
        check(job, data, build_task(None, job.data, data.info))


@pytest.mark.parametrize(
    ("field", "kind", "told"),
    [
        ("input", torch.float64, "the input of the train samples is of torch.float64, and DataInfo says torch.float32"),
        ("input", torch.uint8, "the input of the train samples is of torch.uint8, and DataInfo says torch.float32"),
        ("target", torch.int32, "the target of the train samples is of torch.int32, and DataInfo says torch.int64"),
    ],
)
def test_values_of_another_type_are_told_and_not_a_layers_trouble_with_them(
    field: str, kind: torch.dtype, told: str
) -> None:
    info = DataInfo(Field((2,)), Field((), torch.int64, 2))
    tensors = {"input": torch.ones(4, 2), "target": torch.tensor([0, 1, 0, 1])}
    data = LoadedData(TensorSplit({**tensors, field: tensors[field].to(kind)}), None, info, "0", "t")
    with pytest.raises(SpecError, match=told):
        check(spec(), data, build_task(None, spec().data, info))
    read = SampleSplit(4, lambda index: {name: one[index] for name, one in data.train.fetch([0, 1, 2, 3]).items()})
    with pytest.raises(SpecError, match=told):
        plan(spec(), Path(), replace(data, train=read))
    own = {"model": {"name": "own:Net"}, "task": {"name": "own:task"}, "code": {"dir": "."}}
    check(spec(**own), data, build_task(None, spec().data, info))


def test_targets_of_pictures_are_known_without_reading_them(tmp_path: Path) -> None:
    for name in ("train/cat", "train/dog", "val/cat"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "1.png").write_bytes(b"no picture")
    job = spec(
        data={"name": "image-folder", "params": {"path": "."}},
        task={"name": "classification", "params": {"metrics": ["auroc"]}},
        train={"global_batch_size": 2},
    )
    data = load_data(job.data, tmp_path)
    assert list(check(job, data, build_task(job.task, job.data, data.info)).left_out) == ["auroc"]


class Broken(pieces.Classification):
    def metrics(self) -> torchmetrics.MetricCollection:
        raise ValueError("no such metric")


class Classwise(pieces.Classification):
    def metrics(self) -> torchmetrics.MetricCollection:
        each = torchmetrics.classification.MulticlassAccuracy(pieces.CLASSES, average=None)
        return torchmetrics.MetricCollection({"each": ClasswiseWrapper(each)})


def test_metrics_of_a_task_of_the_users_own_are_asked_for() -> None:
    job = pieces.spec(objective__metric="val/aurok", objective__mode="max")
    with pytest.raises(SpecError, match=r"there is no metric 'val/aurok' .*did you mean 'val/auroc'"):
        check(job, pieces.data(), pieces.Classification())
    with pytest.raises(CodeError, match=r"Broken\.metrics\(\) failed: ValueError: no such metric"):
        check(job, pieces.data(), Broken())
    assert check(job, pieces.data(), Classwise()) == Checked(), "only computing it tells its names"


def test_a_task_of_the_users_own_decides_what_a_target_may_be() -> None:
    data = made([-100, 0, 0], classes=2)
    job = spec(train={"global_batch_size": 1})
    assert check(job, data, pieces.Classification()) == Checked()
    with pytest.raises(SpecError, match="not classes from 0 to 1: sample 0 has -100"):
        check(job, data, build_task(None, job.data, data.info))


NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, info, width=2, kind=""):
        super().__init__()
        self.layer = nn.Linear(info.input.shape[0], width)
        self.table = nn.Embedding(3, 2)
        self.kind = kind

    def forward(self, x):
        if self.kind == "tuple":
            return self.layer(x), x
        if self.kind == "mode" and not self.training:
            raise KeyError("cache")
        if self.kind == "index":
            return self.table((x[:, 0] * 1000).abs().long() + 5)
        if self.kind == "shape":
            return self.layer(x.reshape(7, 13))
        if self.kind == "nan":
            return self.layer(x) / 0 * 0
        return self.layer(x)
"""


@pytest.mark.parametrize(
    ("params", "path", "message"),
    [
        ({"width": 5}, "model", r"gives \(4, 5\) for 4 samples, and classification needs \(batch, 2\)"),
        ({"kind": "tuple"}, "model", r"gives a tuple, and classification needs a tensor \(batch, 2\)"),
        ({"kind": "mode"}, "model", r"cannot be validated on samples of this data: KeyError: 'cache' \(nets_\w+.py, l"),
        ({"kind": "index"}, "model", r"cannot be trained on samples of this data: IndexError: index .*, line 18\)"),
        ({"kind": "shape"}, "model", r"cannot be trained on this data: RuntimeError: shape .*, line 20\)"),
        ({"kind": "nan"}, "data", "the loss of two samples is nan before the first step"),
        ({"width": 2}, "", ""),
    ],
)
def test_a_model_that_workers_could_not_train_is_refused_by_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: dict[str, Any], path: str, message: str
) -> None:
    module = f"nets_{params.get('kind', '')}{params.get('width', '')}"
    (tmp_path / f"{module}.py").write_text(NETS)
    (tmp_path / "t.csv").write_text(SEEN)
    monkeypatch.syspath_prepend(tmp_path)
    job = spec(model={"name": f"{module}:Net", "params": params}, code={"dir": "."})
    if not message:
        assert plan(job, tmp_path).notes == ()
        return
    with pytest.raises(SpecError, match=message) as caught:
        plan(job, tmp_path)
    assert [problem.path for problem in caught.value.problems] == [path]
    gpus = job.model_copy(update={"resources": job.resources.model_copy(update={"gpus_per_worker": 1.0})})
    if params.get("kind") in ("index", "mode", "nan"):
        (note,) = plan(gpus, tmp_path).notes
        assert note.startswith("the model, which may need a GPU, failed on the CPU")


def test_a_regression_with_too_many_outputs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets_real.py").write_text(NETS)
    np.savez(tmp_path / "t.npz", x=np.random.default_rng(0).normal(size=(10, 3)), y=np.arange(10) / 2)
    monkeypatch.syspath_prepend(tmp_path)
    data = {"name": "npz", "params": {"path": "t.npz"}}
    job = spec(data=data, model={"name": "nets_real:Net", "params": {"width": 2}}, code={"dir": "."})
    with pytest.raises(SpecError, match=r"gives \(4, 2\) for 4 samples, and regression needs \(batch\)"):
        plan(job, tmp_path)
    one = job.model_copy(update={"model": job.model.model_copy(update={"params": {"width": 1}})})
    assert plan(one, tmp_path).cost.parameters == 3 + 1 + 6


@pytest.mark.parametrize(
    ("train", "path", "message"),
    [
        ({"freeze": ["hiden.*"]}, "train.freeze", "no parameter matches 'hiden.*'"),
        ({"init_from": "other.safetensors"}, "train.init_from", "no weight in .* fits the model"),
        ({"init_from": "t.csv"}, "train.init_from", "cannot be read as safetensors"),
    ],
)
def test_what_the_model_lacks_is_told_by_plan(tmp_path: Path, train: dict[str, Any], path: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(SEEN)
    save_file({"elsewhere": torch.ones(3)}, tmp_path / "other.safetensors")
    with pytest.raises(SpecError, match=message) as caught:
        plan(spec(train=train), tmp_path)
    assert [problem.path for problem in caught.value.problems] == [path]


def test_weights_that_are_not_here_are_said_to_be_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(SEEN)
    (note,) = plan(spec(train={"init_from": "weigths.safetensors"}), tmp_path).notes
    assert note.startswith("weights to start from: weigths.safetensors is no file here")


def test_a_model_too_large_to_be_tried_is_said(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(SEEN)
    (note,) = plan(spec(model={"name": "mlp", "params": {"hidden": [9000, 9000]}}), tmp_path).notes
    assert note == "the model is too large to be tried with samples of the data here"
