"""Lengths that reach beyond a training, as far as only its data tells how long that is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from epochal.errors import SpecError
from epochal.spec.job import JobSpec
from epochal.training.plan import plan
from epochal.training.setup import prepare

TABLE = "a,y\n" + "".join(f"{index},{'no' if index % 2 else 'yes'}\n" for index in range(10))
"""8 of them are trained on, in 2 steps an epoch."""


def spec(**train: Any) -> JobSpec:
    return JobSpec.model_validate(
        {
            "version": 1,
            "name": "t",
            "model": {"name": "mlp", "params": {"hidden": [4]}},
            "data": {"name": "csv", "params": {"path": "t.csv", "target": "y"}},
            "train": {"epochs": 1, "global_batch_size": 4, **train},
        }
    )


@pytest.fixture(autouse=True)
def table(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(TABLE)


@pytest.mark.parametrize(
    ("train", "path"),
    [
        ({"lr_schedule": {"name": "linear", "warmup": 4}}, "train.lr_schedule.warmup"),
        ({"average": {"start": 4}}, "train.average.start"),
    ],
)
def test_what_begins_behind_the_end_is_told(tmp_path: Path, train: dict[str, Any], path: str) -> None:
    """The warm-up was cut, and the last weights were exported for the mean."""
    job = spec(**train, epochs=2)
    with pytest.raises(SpecError, match=r"expected fewer than the 4 steps of train\.epochs \(2\), got 4") as caught:
        plan(job, tmp_path)
    assert [problem.path for problem in caught.value.problems] == [path]
    known = prepare(spec(**train, epochs=3), tmp_path)
    with pytest.raises(SpecError, match="expected fewer than the 4 steps"):
        prepare(job, tmp_path, known)


@pytest.mark.parametrize(
    ("schedule", "told"),
    [
        ({"name": "step", "every": 3, "warmup": 1}, "every: step 3 is never reached: there are 3 steps after"),
        ({"name": "step", "every": 2, "warmup": 1}, ""),
        ({"name": "multistep", "milestones": [0.5, 3, 4, 40]}, "milestones: step 4, 40 is never reached: there are 4"),
        ({"name": "cosine_restarts", "first": 0.5}, ""),
        ({"name": "cosine_restarts", "first": 10}, "first: step 10 is never reached: there are 4 steps"),
    ],
)  # fmt: skip
def test_a_change_of_the_rate_behind_the_end_is_told(tmp_path: Path, schedule: dict[str, Any], told: str) -> None:
    notes = prepare(spec(epochs=2, lr_schedule=schedule), tmp_path).checked.notes
    assert len(notes) == bool(told)
    assert all(note.startswith(f"train.lr_schedule.{told}") for note in notes)


def test_a_trial_whose_warm_up_is_longer_than_that_of_the_one_before(tmp_path: Path) -> None:
    short, long = (spec(lr_schedule={"name": "linear", "warmup": steps}) for steps in (1, 2))
    with pytest.raises(SpecError, match="expected fewer than the 2 steps"):
        prepare(long, tmp_path, prepare(short, tmp_path))


@pytest.mark.parametrize(
    "schedule", [{"name": "linear", "warmup": 4}, {"name": "multistep", "milestones": [4], "warmup": 0.25}]
)
def test_trials_that_differ_in_their_length_are_looked_at_one_by_one(tmp_path: Path, schedule: dict[str, Any]) -> None:
    """What the spec of a sweep says of its length is no trial's."""
    job = spec(epochs=2, lr_schedule=schedule).model_dump(mode="json", exclude_unset=True)
    sweep = {"search": {"name": "random"}, "trials": 2, "space": {"train.epochs": {"choice": [5, 9]}}}
    swept = JobSpec.model_validate({**job, "objective": {"metric": "val/loss", "mode": "min"}, "sweep": sweep})
    assert plan(swept, tmp_path).notes == ()
