"""Every sample is read once, and each bad one is named with its reason."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from epochal.catalog.build import load_data
from epochal.catalog.data import Batch, DataInfo, Field, LoadedData, SampleSplit, TensorSplit
from epochal.cli.main import main
from epochal.spec.job import JobSpec
from epochal.spec.section import Component
from epochal.training import every_sample
from epochal.training.every_sample import BadSample, read_all, read_once

INFO = DataInfo(Field((2,)), Field((), torch.int64, 3))
FIELDS = {"input": INFO.input, "target": INFO.target}
PICTURES = Component(name="image-folder", params={"path": "pets", "validation": 0})


def spec(data: Component, task: str | None = None) -> JobSpec:
    tree = {"version": 1, "name": "t", "model": {"name": "mlp"}, "data": data.model_dump(), "train": {"epochs": 1}}
    return JobSpec.model_validate({**tree, "task": {"name": task} if task else None})


def sound() -> Batch:
    return {"input": torch.ones(40, 2), "target": torch.arange(40) % 3}


def changed(field: str, row: int, value: float) -> TensorSplit:
    batch = sound()
    batch[field][row] = value
    return TensorSplit(batch)


def fails(index: int) -> Batch:
    if index == 33:
        raise OSError(f"part-{index}.bin: cut off")
    width = 3 if index == 7 else 2
    return {"input": torch.ones(width), "target": torch.tensor(0)}


FAILS = fails.__code__.co_firstlineno


@pytest.mark.parametrize(
    ("split", "bad"),
    [
        (TensorSplit(sound()), []),
        (changed("input", 3, float("nan")), [(3, "the input has a value that is missing or not finite")]),
        (changed("input", 39, float("inf")), [(39, "the input has a value that is missing or not finite")]),
        (changed("target", 0, 3), [(0, "the target is not from 0 to 2")]),
        (changed("target", 5, -1), [(5, "the target is not from 0 to 2")]),
        (
            SampleSplit(40, fails),
            [
                (7, "the input has the shape (3,), expected (2,)"),
                (33, f"sample 33 cannot be read: part-33.bin: cut off ({Path(__file__).name}, line {FAILS + 2})"),
            ],
        ),
    ],
)
def test_bad_samples_are_named(split: TensorSplit | SampleSplit, bad: list[tuple[int, str]]) -> None:
    told: list[int] = []
    data = LoadedData(TensorSplit(sound()), split, INFO, "d", "made up")
    assert read_all(data, FIELDS, 8, told.append) == tuple(BadSample("validation", *one) for one in bad)
    assert sum(told) == 80


def pets(folder: Path) -> Path:
    for name in ("cat", "dog"):
        (folder / "pets" / name).mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (4, 4), (index, 0, 0)).save(folder / "pets" / name / f"{index}.png")
    damaged = folder / "pets" / "dog" / "1.png"
    damaged.write_bytes(damaged.read_bytes()[:40])
    return damaged


class Counted:
    """A split that counts what is read."""

    def __init__(self, split: Any) -> None:
        self.split, self.read = split, 0

    def __len__(self) -> int:
        return len(self.split)

    def fetch(self, indices: Sequence[int]) -> Batch:
        self.read += len(indices)
        return self.split.fetch(indices)  # type: ignore[no-any-return]


def test_the_result_is_kept_by_the_digest_and_only_what_was_bad_is_read_again(tmp_path: Path) -> None:
    damaged = pets(tmp_path)
    data = load_data(PICTURES, tmp_path)

    def read() -> tuple[tuple[BadSample, ...], int]:
        counting = Counted(data.train)
        found = read_once(replace(data, train=counting), spec(PICTURES), tmp_path / "kept", 1, lambda more: None)
        return found, counting.read

    (first,), reads = read()
    assert (first.split, first.sample, reads > 6) == ("train", 4, True)
    assert first.reason.startswith(f"{damaged} cannot be read as an image")
    assert read() == ((first,), 1)
    Image.new("RGB", (4, 4)).save(damaged)
    assert read() == ((), 1), "mended"
    assert read() == ((), 0)
    (kept,) = (tmp_path / "kept").iterdir()
    kept.write_text("[{")
    assert read() == ((), 6)
    data = replace(data, digest="another")
    assert read() == ((), 6)


def test_data_of_the_users_own_is_read_each_time(tmp_path: Path) -> None:
    counting = Counted(TensorSplit(sound()))
    data = LoadedData(counting, None, INFO, "1", "mine")
    for _ in range(2):
        assert read_once(data, spec(Component(name="mine:load")), tmp_path / "kept", 1, lambda more: None) == ()
    assert counting.read == 80
    assert not (tmp_path / "kept").exists()


def test_a_task_of_the_users_own_decides_what_a_target_may_be(tmp_path: Path) -> None:
    data = LoadedData(changed("target", 5, -100), None, INFO, "d", "made up")
    own, ours = (spec(Component(name="digits"), task) for task in ("mine:Task", None))
    assert read_once(data, own, tmp_path, 1, lambda more: None) == ()
    assert [one.sample for one in read_once(data, ours, tmp_path, 1, lambda more: None)] == [5]


def test_what_no_process_can_be_given_is_read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(every_sample, "FEW", 10)

    def read(index: int) -> Batch:
        return fails(index)

    data = LoadedData(SampleSplit(40, read), None, INFO, "1", "mine")
    assert [bad.sample for bad in read_all(data, FIELDS, 2, lambda more: None)] == [7, 33]


def test_plan_lists_bad_samples_and_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged, job = pets(tmp_path), tmp_path / "job.yaml"
    job.write_text(yaml.safe_dump(spec(PICTURES).model_dump(mode="json", exclude_unset=True)))
    assert main(["plan", str(job), "--data"]) == 2
    told = capsys.readouterr()
    assert str(damaged) in told.out
    assert "1 of 6 samples cannot be trained on" in told.err
    assert main(["plan", str(job), "--data", "-o", "json"]) == 2
    found = json.loads(capsys.readouterr().out)["data"]
    assert (found["samples"], [one["sample"] for one in found["bad"]]) == (6, [4])
    os.remove(damaged)
    assert main(["plan", str(job), "--data", "-o", "json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["data"] == {"samples": 5, "bad": []}
    doubt = "the same picture is in two classes: cat/0.png and dog/0.png, cat/2.png and dog/2.png"
    assert doubt in json.loads(told.out)["plan"]["notes"]
    assert "all of the 5 samples can be read" in told.err
