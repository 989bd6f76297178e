"""A file to a spec, or to every problem in it."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from spec_texts import FULL, SMALL, load, problems

from epochal.errors import Problem, SpecError
from epochal.spec import JobSpec, load_spec, load_text

FIVE_MISTAKES = """\
version: 1
name: Digits CNN
model: {name: cnn}
data: {name: digits}
train:
  epochs: 5
  global_batch_size: 2
  optimzer: {name: adamw}
  precision: fp61
resources: {workers: 4}
priority: 101
"""


def test_five_mistakes_are_five_problems_in_the_order_of_the_file() -> None:
    found = problems(FIVE_MISTAKES)
    assert [(one.line, one.path) for one in found] == [
        (2, "name"),
        (7, "train.global_batch_size"),
        (8, "train.optimzer"),
        (9, "train.precision"),
        (11, "priority"),
    ]


def test_rules_see_past_wrong_fields_but_not_through_them() -> None:
    wrong_batch = FIVE_MISTAKES.replace("global_batch_size: 2", "global_batch_size: two")
    assert [one.path for one in problems(wrong_batch)][1] == "train.global_batch_size"
    assert len(problems(wrong_batch)) == 5


def test_an_incomplete_section_hides_no_rule_of_another() -> None:
    text = FIVE_MISTAKES + "objective: {metric: val/loss}\ncheckpoint: {keep: {best: 2}}\nlimits: {max_pending: 0s}\n"
    assert [one.path for one in problems(text)][5:] == ["objective.mode", "limits.max_pending"]


def test_a_spec_of_nothing_lists_what_is_required() -> None:
    assert {one.path for one in problems("{}")} == {"version", "name", "model", "data", "train"}


def test_the_full_spec_is_read_as_written() -> None:
    spec = load(FULL).spec
    assert spec.train.optimizer.params == {"weight_decay": 0.01}
    assert (spec.resources.min_workers, spec.resources.max_workers) == (4, 4)
    assert spec.sweep is not None
    assert list(spec.sweep.space) == [
        "train.optimizer.lr", "model.params.channels", "train.global_batch_size", "train.lr_schedule.warmup",
        "train.clip_grad_norm", "train.seed",
    ]  # fmt: skip


@pytest.mark.parametrize("text", [SMALL, FULL])
def test_a_stored_spec_is_the_same_spec(text: str) -> None:
    spec = load(text).spec
    stored = spec.model_dump(mode="json")
    assert JobSpec.from_stored(stored) == spec
    assert JobSpec.from_stored(stored).model_dump(mode="json") == stored


def test_a_stored_spec_of_a_newer_version_is_read() -> None:
    spec = load(FULL).spec
    stored = spec.model_dump(mode="json") | {"newer": 1}
    stored["train"]["newer"] = {"x": 1}
    stored["resources"]["newer"] = 1
    stored["sweep"]["space"]["train.lr_schedule.warmup"]["newer"] = 1
    assert JobSpec.from_stored(stored) == spec


def test_every_value_has_an_origin() -> None:
    loaded = load(SMALL, "train.optimizer.lr=0.1", "tags.team=vision")
    origins = loaded.origins
    assert origins["model.name"] == "job.yaml:3"
    assert origins["train.epochs"] == "job.yaml:5"
    assert origins["train.optimizer.lr"] == "--set"
    assert origins["tags.team"] == "--set"
    assert origins["train.optimizer.name"] == "default"
    assert origins["sweep"] == "default"
    assert set(origins) == _leaf_paths(loaded.spec.model_dump(mode="json"))


def _leaf_paths(value: Any, prefix: str = "") -> set[str]:
    if not isinstance(value, dict) or not value:
        return {prefix[:-1]}
    return set().union(*(_leaf_paths(below, f"{prefix}{key}.") for key, below in value.items()))


def test_checks_see_the_spec_less_its_wrong_fields_and_get_their_lines() -> None:
    seen: list[Mapping[str, Any]] = []

    def check(tree: Mapping[str, Any]) -> list[Problem]:
        seen.append(tree)
        return [
            Problem("model.params.width", "is too wide", value=3),
            Problem("model.params.depth", "is required"),
            Problem("train.precision", "is left to the field's own problem"),
        ]

    text = SMALL.replace("{name: cnn}", "{name: cnn, params: {width: 3}}").replace("5}", "5, precision: x}")
    with pytest.raises(SpecError) as caught:
        load_text(text, Path("job.yaml"), checks=[check])
    found = [(one.path, one.line, one.column) for one in caught.value.problems]
    assert found == [("model.params.depth", 3, 20), ("model.params.width", 3, 36), ("train.precision", 5, 31)]
    assert "precision" not in seen[0]["train"]


def test_a_file_s_folder_is_where_its_paths_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "job.yaml").write_text(SMALL)
    monkeypatch.chdir(tmp_path)
    loaded = load_spec("sub/job.yaml")
    assert loaded.folder == tmp_path / "sub"
    assert loaded.source == "sub/job.yaml"
    assert loaded.origins["name"] == "job.yaml:2"


def test_an_error_survives_the_way_between_processes() -> None:
    with pytest.raises(SpecError) as caught:
        load(FIVE_MISTAKES)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert again.problems == caught.value.problems


def test_what_is_found_later_has_the_line_of_what_it_is_in() -> None:
    """Of an item in a list, which has no origin of its own, there was none."""
    loaded = load(SMALL.replace("{name: cnn}", "\n  name: cnn\n  params:\n    channels: [8, 16]"))
    found = ["model.params.channels.1", "model.params", "model", "train.seed.x"]
    placed = loaded.placed(SpecError("the job spec", tuple(Problem(path, "no") for path in found))).problems
    assert [(one.line, one.origin) for one in placed] == [(6, ""), (4, ""), (4, ""), (None, "default")]
