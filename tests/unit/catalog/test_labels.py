"""Labels: several a sample, classes of which there are few, texts with a class, what is on a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from epochal.catalog.build import build_task, load_data
from epochal.catalog.data import DataInfo, Field, LoadedData, TensorSplit
from epochal.catalog.losses import balanced, balanced_ones
from epochal.catalog.task import ChecksTargets
from epochal.errors import EpochalError, SpecError
from epochal.spec.job import JobSpec
from epochal.spec.section import Component
from epochal.training.check import check

LABELS = DataInfo(Field((6,)), Field((3,)))


def _task(name: str, info: DataInfo, **params: Any) -> Any:
    return build_task(Component(name=name, params=params), Component(name="synthetic"), info)


def _labelled(target: Tensor) -> LoadedData:
    split = TensorSplit({"input": torch.zeros(len(target), 6), "target": target})
    return LoadedData(split, None, LABELS, "digest", "source")


def _job(**sections: Any) -> JobSpec:
    sections.setdefault("data", {"name": "wine"})
    return JobSpec(
        version=1, name="job", model={"name": "mlp"}, train={"epochs": 1, "global_batch_size": 1}, **sections
    )


def test_every_metric_of_labels_works() -> None:
    metrics = ["accuracy", "exact_match", "f1", "precision", "recall", "auroc", "average_precision"]
    task = _task("multi-label", LABELS, metrics=metrics)
    target = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    outputs = 4 * target - 2
    outputs[0, 0] = -3.0  # one of twelve is wrong
    collection = task.metrics()
    task.update(collection, outputs, {"target": target})
    found = collection.compute()
    assert set(found) == set(metrics)
    assert found["accuracy"] == pytest.approx(11 / 12)
    assert found["exact_match"] == 0.75
    assert found["recall"] == pytest.approx((0.5 + 1 + 1) / 3)


def test_labels_that_cannot_be_ranked_do_not_count() -> None:
    task = _task("multi-label", LABELS, metrics=["auroc", "average_precision"])
    target = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    collection = task.metrics()
    task.update(collection, 4 * target - 2, {"target": target})
    assert collection.compute() == {"auroc": 1.0, "average_precision": 1.0}
    assert task.unmeasurable(2, target) == {}
    assert list(task.unmeasurable(2, target[1:])) == ["auroc"]
    assert list(task.unmeasurable(2, target[1:] * 0)) == ["auroc", "average_precision"]


def test_outputs_of_a_small_batch_are_no_probabilities() -> None:
    task = _task("multi-label", LABELS, metrics=["accuracy", "auroc"])
    outputs = torch.tensor([[0.2, 0.6, 0.9], [-0.1, -2.0, 0.3], [2.0, 0.1, -0.2]])
    target = (outputs > 0).float()
    collection = task.metrics()
    for row in range(3):
        task.update(collection, outputs[row : row + 1], {"target": target[row : row + 1]})
    assert collection.compute() == {"accuracy": 1.0, "auroc": 1.0}


def test_labels_that_are_neither_zero_nor_one_are_told_before_a_training() -> None:
    job = _job(task={"name": "multi-label"})
    task = _task("multi-label", LABELS)
    assert isinstance(task, ChecksTargets)
    right, wrong = torch.tensor([[1.0, 0.0, 1.0]] * 2), torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.5, 0.0]])
    check(job, _labelled(right), task)
    with pytest.raises(SpecError, match=r"1 of 2 targets .* are not zeros and ones, one for each label: sample 1"):
        check(job, _labelled(wrong), task)


@pytest.mark.parametrize(
    ("info", "params", "said"),
    [
        (DataInfo(Field((6,)), Field((), torch.int64, 3)), {}, "use classification"),
        (DataInfo(Field((6,)), Field((1,))), {}, "several labels"),
        (LABELS, {"loss": {"name": "bce_with_logits", "pos_weight": [1.0]}}, "pos_weight has 1 values for 3 classes"),
    ],
)
def test_what_labels_cannot_be_is_told(info: DataInfo, params: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as caught:
        _task("multi-label", info, **params)
    assert said in str(caught.value)


def test_balanced_classes_count_for_the_same_together() -> None:
    counts = [10, 30, 60]
    weights = balanced(counts)
    assert [weight * count for weight, count in zip(weights, counts, strict=True)] == pytest.approx([100 / 3] * 3)
    assert balanced([4, 0]) == [0.5, 2.0]


def test_balanced_weights_are_those_of_the_training_samples_and_are_told(tmp_path: Path) -> None:
    loss = {"name": "cross_entropy", "class_weights": "balanced"}
    job = _job(task={"name": "classification", "params": {"loss": loss}})
    data = load_data(job.data, tmp_path)
    task = build_task(job.task, job.data, data.info)
    target = data.train.fetch(range(len(data.train)))["target"]
    counts = torch.bincount(target).tolist()
    assert data.info.target.counts == tuple(counts)
    given = task.loss(nn.Linear(13, 3), data.train.fetch(range(len(target)))).weight
    assert isinstance(given, Tensor)
    torch.testing.assert_close(given, torch.tensor(float(len(target))))
    told = ", ".join(f"{number} {weight:.4g}" for number, weight in enumerate(balanced(counts)))
    assert f"class_weights: balanced counts a sample of each class for: {told}" in check(job, data, task).notes


def test_classes_that_are_not_counted_cannot_be_balanced() -> None:
    loss = {"name": "focal", "class_weights": "balanced"}
    with pytest.raises(SpecError, match="needs the class of every training sample"):
        _task("classification", DataInfo(Field((6,)), Field((), torch.int64, 3)), loss=loss)


def test_balanced_ones_are_those_of_the_training_samples_and_are_told(tmp_path: Path) -> None:
    job = _job(
        data={"name": "shapes", "params": {"target": "kinds", "samples": 60}},
        task={"name": "multi-label", "params": {"loss": {"name": "bce_with_logits", "pos_weight": "balanced"}}},
    )
    data = load_data(job.data, tmp_path)
    task = build_task(job.task, job.data, data.info)
    batch = data.train.fetch(range(len(data.train)))
    ones = batch["target"].sum(0)
    weights = (len(batch["target"]) - ones) / ones
    assert len(set(weights.tolist())) > 1

    class Undecided(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x), len(ones))

    loss = nn.functional.binary_cross_entropy_with_logits(
        torch.zeros_like(batch["target"]), batch["target"], pos_weight=weights
    )
    torch.testing.assert_close(task.loss(Undecided(), batch).total / len(batch["target"]), loss)
    told = ", ".join(f"{name} {weight:.4g}" for name, weight in zip(data.classes, weights.tolist(), strict=True))
    assert f"pos_weight: balanced counts a 1 of each label for: {told}" in check(job, data, task).notes


def test_a_label_that_all_or_none_have_is_balanced_too() -> None:
    assert balanced_ones([(6, 2), (8, 0), (0, 8)]) == [3.0, 8.0, 1.0]


def test_one_yes_or_no_is_weighed_as_regression() -> None:
    info = DataInfo(Field((6,)), Field((), labels=((9, 3),)))
    batch = {"input": torch.randn(4, 6), "target": torch.tensor([0.0, 1.0, 0.0, 1.0])}
    model = nn.Linear(6, 1)
    given, found = (
        _task("regression", info, loss={"name": "bce_with_logits", "pos_weight": weight}, metrics=["mae"])
        for weight in ([3.0], "balanced")
    )
    assert torch.equal(given.loss(model, batch).total, found.loss(model, batch).total)


@pytest.mark.parametrize(
    ("task", "target", "said"),
    [
        ("multi-label", Field((3,)), "pos_weight: balanced needs the zeros and ones of every training sample"),
        ("regression", Field((2, 3)), "pos_weight weighs classes or labels, and this target has none"),
    ],
    ids=["unknown", "matrix"],
)
def test_ones_that_are_not_counted_cannot_be_balanced(task: str, target: Field, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        _task(task, DataInfo(Field((6,)), target), loss={"name": "bce_with_logits", "pos_weight": "balanced"})


def test_boxes_and_kinds_are_those_of_the_pixels(tmp_path: Path) -> None:
    found = {
        target: load_data(Component(name="shapes", params={"target": target, "samples": 40, "validation": 0}), tmp_path)
        for target in ("pixels", "boxes", "kinds")
    }
    batches = {target: data.train.fetch(range(40)) for target, data in found.items()}
    assert all(torch.equal(batches["pixels"]["input"], batch["input"]) for batch in batches.values())
    each = [*(batches[target]["target"] for target in found), batches["boxes"]["labels"]]
    for pixels, boxes, kinds, labels in zip(*each, strict=True):
        seen = sorted(set(pixels.flatten().tolist()) - {0})
        assert [kind + 1 for kind in kinds.nonzero().flatten().tolist()] == seen
        assert sorted(set(labels.tolist()) - {0}) == seen
        assert not boxes[labels == 0].any()
        for kind in seen:
            place = (pixels == kind).nonzero()
            own = boxes[labels == kind]
            assert own[:, 0].min() == place[:, 1].min()
            assert own[:, 1].min() == place[:, 0].min()
            assert own[:, 2].max() == place[:, 1].max() + 1
            assert own[:, 3].max() == place[:, 0].max() + 1


def _text(folder: Path, **texts: list[str]) -> Path:
    for name, samples in texts.items():
        (folder / name).mkdir()
        for number, sample in enumerate(samples):
            (folder / name / f"{number}.txt").write_text(sample)
    return folder


def test_texts_of_folders_are_words_of_the_training_texts(tmp_path: Path) -> None:
    _text(tmp_path, cat=["Miau, purr miau"] * 3, dog=["Wow!"] * 3)
    data = load_data(Component(name="labelled-text", params={"path": ".", "length": 5, "validation": 0}), tmp_path)
    assert data.classes == ("cat", "dog")
    batch = data.train.fetch([0, 5])
    # The most common come first, of equally common ones in the alphabet's order: miau 2, then ! , purr wow.
    assert batch["input"].tolist() == [[2, 4, 5, 2, 0], [6, 3, 0, 0, 0]]
    assert batch["target"].tolist() == [0, 1]
    assert data.info.input.classes == 7


def test_words_that_only_validation_has_are_unknown(tmp_path: Path) -> None:
    _text(tmp_path, cat=[f"word{number}" for number in range(10)], dog=[f"dog{number}" for number in range(10)])
    data = load_data(Component(name="labelled-text", params={"path": ".", "length": 1}), tmp_path)
    assert data.validation is not None
    assert data.validation.fetch(range(4))["input"].flatten().tolist() == [1, 1, 1, 1]
    assert data.train.fetch(range(16))["input"].min() == 2


def test_texts_of_one_class_are_refused(tmp_path: Path) -> None:
    _text(tmp_path, cat=["miau"])
    with pytest.raises(EpochalError, match="texts of one class, cat"):
        load_data(Component(name="labelled-text", params={"path": "."}), tmp_path)


def test_what_programs_leave_in_hidden_folders_is_no_class(tmp_path: Path) -> None:
    _text(tmp_path, **{"cat": ["miau"] * 2, "dog": ["wow"] * 2, ".ipynb_checkpoints": ["miau"]})
    _text(tmp_path / "cat", **{".trash": ["old"]})
    data = load_data(Component(name="labelled-text", params={"path": ".", "validation": 0}), tmp_path)
    assert (data.classes, len(data.train)) == (("cat", "dog"), 4)
