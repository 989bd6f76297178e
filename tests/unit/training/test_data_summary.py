"""What is told of a training's data: to `plan`, to MLflow, to a job's page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from epochal.catalog.build import load_data
from epochal.catalog.data import DataInfo, Field, LoadedData, SampleSplit, TensorSplit
from epochal.catalog.understood import Understood
from epochal.engine.events import Reported, redacted
from epochal.redaction import Redactor
from epochal.spec.section import Component
from epochal.training.check import summarized
from epochal.training.control import Noted, Prepared
from epochal.training.data_summary import ClassCount, DataSummary, tidy


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("data")
    (made / "text.csv").write_text("a,y\n" + "1,no\n2,yes\n" * 4)
    (made / "numbers.csv").write_text("a,y\n" + "1,3\n2,5\n3,9\n" * 2)
    (made / "real.csv").write_text("a,y\n1,0.5\n2,1.5\n3,2.5\n4,1.25\n")
    np.savez(made / "named.npz", x=np.ones((4, 2)), y=np.array(["cat", "dog", "dog", "cat"]))
    np.savez(made / "apart.npz", x=np.ones((3, 2)), y=[0, 1, 1], x_val=np.ones((1, 2)), y_val=[1])
    np.savez(made / "wide.npz", x=np.ones((3, 2)), y=np.ones((3, 2)))
    for name in ("pets/cat/1.png", "pets/cat/2.png", "pets/dog/1.png", "pets/dog/2.png"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(made / name)
    return made


@pytest.mark.parametrize(
    ("name", "params", "classes"),
    [
        ("csv", {"path": "text.csv", "target": "y", "validation": 0.5}, [("no", 2, 2), ("yes", 2, 2)]),
        ("csv", {"path": "text.csv", "target": "y", "validation": 0}, [("no", 4, 0), ("yes", 4, 0)]),
        (
            "csv",
            {"path": "numbers.csv", "target": "y", "validation": 0.5},
            [("3", 1, 1), ("5", 1, 1), ("9", 1, 1)],
        ),
        ("csv", {"path": "real.csv", "target": "y"}, []),
        ("npz", {"path": "named.npz", "validation": 0}, [("cat", 2, 0), ("dog", 2, 0)]),
        ("npz", {"path": "apart.npz"}, [("0", 1, 0), ("1", 2, 1)]),
        ("npz", {"path": "wide.npz"}, []),
        ("image-folder", {"path": "pets", "validation": 0.5}, [("cat", 1, 1), ("dog", 1, 1)]),
        ("wine", {"validation": 0}, [("0", 59, 0), ("1", 71, 0), ("2", 48, 0)]),
    ],
)
def test_classes_are_counted(
    folder: Path, name: str, params: dict[str, Any], classes: list[tuple[str, int, int]]
) -> None:
    data = load_data(Component(name=name, params=params), folder)
    summary = summarized(name, data)
    assert [(one.name, one.train, one.validation) for one in summary.classes] == classes
    assert (summary.train_samples, summary.digest, summary.source) == (len(data.train), data.digest, data.source)


def test_of_a_dataset_of_ones_own() -> None:
    def of(split: TensorSplit | SampleSplit, names: tuple[str, ...] = (), classes: int = 3) -> LoadedData:
        return LoadedData(
            split, None, DataInfo(Field((1,)), Field((), torch.int64, classes)), "0", "mine", (), classes=names
        )

    ignored = TensorSplit({"target": torch.tensor([0, -100, 2, 2])})
    assert summarized("mine", of(ignored)).classes == (
        ClassCount("0", 1, 0),
        ClassCount("1", 0, 0),
        ClassCount("2", 2, 0),
    )
    assert [one.name for one in summarized("mine", of(ignored, ("a", "b", "c"))).classes] == ["a", "b", "c"]
    assert [one.name for one in summarized("mine", of(ignored, ("a",))).classes] == ["0", "1", "2"]
    assert summarized("mine", of(SampleSplit(4, lambda index: {}))).classes == ()


MANY = DataSummary(
    dataset="csv",
    source="/data/t.csv",
    digest="d1",
    train_samples=1200,
    validation_samples=300,
    understood=(
        *(Understood(f"c{n}", "number", n) for n in range(5)),
        Understood("y", "target, class", note="7 classes"),
    ),
    classes=tuple(ClassCount(f"k{n}", 100 * n, n) for n in range(7)),
    notes=("val/auroc is left out: one class",),
)


@pytest.mark.parametrize(
    ("most", "kept", "classes", "more"),
    [(9, "c0 c1 c2 c3 c4 y", 7, (0, 0)), (6, "c0 c1 c2 c3 c4 y", 6, (0, 1)), (2, "y c0", 2, (4, 5))],
)
def test_long_lists_are_cut_and_counted(most: int, kept: str, classes: int, more: tuple[int, int]) -> None:
    cut = MANY.first(most)
    assert " ".join(one.name for one in cut.understood) == kept
    assert len(cut.classes) == classes
    assert (cut.more_understood, cut.more_classes) == more
    assert cut.first(most) == cut
    text = cut.text()
    for count, what in zip(more, ("parts of the data", "classes"), strict=True):
        assert (f"... and {count} more {what}" in text) is (count > 0)


def test_for_people() -> None:
    assert MANY.first(2).text().splitlines() == [
        "data    csv",
        "source  /data/t.csv",
        "split   1,200 samples to train on, 300 to validate on",
        "",
        "NAME  TAKEN FOR      MISSING  NOTE",
        "y     target, class  -        7 classes",
        "c0    number         -        -",
        "... and 4 more parts of the data",
        "",
        "CLASS  TRAIN  VALIDATION",
        "k0     0      0",
        "k1     100    1",
        "... and 5 more classes",
        "",
        "note: val/auroc is left out: one class",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("größe", "größe"),
        ("a\x00b\x1b[31m", "a\ufffdb\ufffd[31m"),
        ("caf\udce9", "caf\ufffd"),
        ("x" * 500, "x" * 500),
        ("x" * 1501, "x" * 500 + "... (1,501 characters)"),
    ],
    ids=["plain", "controls", "surrogate", "long", "longer"],
)
def test_words_are_such_as_every_database_and_page_takes(text: str, told: str) -> None:
    assert tidy(text) == told


def test_secrets_in_data_are_not_told() -> None:
    leaky = MANY.worded(lambda text: f"hunter2-hunter2 {text}")
    event = redacted(Reported(0, Prepared(leaky, 3)), Redactor([b"hunter2-hunter2"]))
    assert isinstance(event, Reported)
    assert isinstance(event.report, Prepared)
    assert "hunter2" not in repr(event)
    assert event.report.data.classes[0].name == "*** k0"


def test_secrets_in_notes_are_not_told() -> None:
    note = Noted("pictures of the validation are left out: no answer to hunter2-hunter2")
    event = redacted(Reported(0, note, trial=3), Redactor([b"hunter2-hunter2"]))
    assert event == Reported(0, Noted("pictures of the validation are left out: no answer to ***"), trial=3)
