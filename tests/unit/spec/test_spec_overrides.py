"""``--set``: paths, values, and how problems with them read."""

from __future__ import annotations

from typing import Any

import pytest
from spec_texts import FULL, SMALL, load, problem, problems

from epochal.spec.overrides import apply
from epochal.spec.source import parse


def changed(text: str, *overrides: str) -> Any:
    tree, wrong = apply(parse(text, "job.yaml")[0], overrides)
    assert wrong == []
    return tree.plain()


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("train.epochs=3", "train.epochs", 3),
        ("train.optimizer.lr=1e-2", "train.optimizer.lr", 0.01),
        ("train.compile=true", "train.compile", True),
        ("description=a: b", "description", "a: b"),
        ("description=- a", "description", "- a"),
        ("description='5'", "description", "5"),
        ("sweep=", "sweep", None),
        ("model.params.channels=[16, 32]", "model.params.channels", [16, 32]),
        ("train.optimizer={name: sgd, lr: 0.1}", "train.optimizer", {"name": "sgd", "lr": 0.1}),
        ("resources.workers.max=4", "resources.workers.max", 4),
        ("description=x=y", "description", "x=y"),
    ],
)
def test_values_are_yaml(override: str, path: str, value: Any) -> None:
    found = changed(SMALL, override)
    for step in path.split("."):
        found = found[step]
    assert found == value


def test_list_items_are_set_by_index_and_appended_at_the_end() -> None:
    assert changed("a: [1, {b: 2}]", "a.0=9", "a.1.b=3", "a.2=4") == {"a": [9, {"b": 3}, 4]}


def test_an_alias_is_changed_in_one_place_only() -> None:
    assert changed("a: &a {x: 1}\nb: *a", "b.x=2") == {"a": {"x": 1}, "b": {"x": 2}}


def test_keys_with_dots_are_found_and_made() -> None:
    space = changed(FULL, "sweep.space.train.optimizer.lr.low=1e-4", "sweep.space.train.seed={choice: [1, 2]}")
    assert space["sweep"]["space"]["train.optimizer.lr"]["low"] == 1e-4
    assert space["sweep"]["space"]["train.seed"] == {"choice": [1, 2]}
    assert changed(SMALL, "tags.a.b=c")["tags"] == {"a.b": "c"}


def test_the_last_of_two_wins() -> None:
    assert load(SMALL, "train.epochs=3", "train.epochs=4").spec.train.epochs == 4


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.epochs", "expected PATH=VALUE"),
        ("a..b=1", "expected a dotted path"),
        ("=1", "expected a dotted path"),
        (".".join("a" * 100) + "=1", "expected a dotted path"),
        ("train.freeze.7=x", "expected an index from 0 to 1, got 7"),
        ("train.freeze.x=x", "expected an index from 0 to 1, got 'x'"),
        ("train.epochs=[1, 2", "put text with special characters in quotes"),
        ("train.epochs=*a", "put text with special characters in quotes"),
        ("train.epochs=five", "expected a whole number, got 'five'"),
        ("train.epoch=3", "there is no such field"),
        ("train.micro_batch_size=999", "expected at most train.global_batch_size"),
    ],
)
def test_what_is_wrong_with_an_override_names_it(override: str, told: str) -> None:
    found = problem(FULL, override)
    assert told in found.message
    assert (found.origin, found.line) == ("--set", None)
    assert str(found).startswith("--set: ")


def test_problems_of_the_file_come_before_those_of_overrides() -> None:
    found = problems(SMALL.replace("cnn}", "5}"), "priority=999", "nonsense")
    assert [one.origin for one in found] == ["", "--set", "--set"]


@pytest.mark.parametrize(
    ("text", "overrides", "experiment"),
    [
        (SMALL, ["name=one"], "digits-cnn"),
        (SMALL, ["name=one", "experiment=mine"], "mine"),
        (SMALL, [], "digits-cnn"),
        (FULL, ["name=one"], "digits"),
        (FULL, ["name=one", "experiment="], "digits-cnn"),
    ],
)
def test_another_name_stays_in_the_experiment_of_the_spec(text: str, overrides: list[str], experiment: str) -> None:
    spec = load(text, *overrides).spec
    assert spec.experiment_name == experiment
    assert spec.name == ("one" if overrides else "digits-cnn")
