"""Names and parameters of a spec's tree are checked from the index alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal.catalog.build import build_model
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.index import check, entries, entry
from epochal.errors import NotFoundError, SpecError
from epochal.spec.section import Component

GOOD: dict[str, Any] = {"model": {"name": "cnn"}, "data": {"name": "digits"}, "train": {"epochs": 1}}


def _found(**changes: Any) -> dict[str, str]:
    return {problem.path: problem.message for problem in check({**GOOD, **changes})}


def test_a_good_tree_has_no_problem() -> None:
    train = {"optimizer": {"name": "sgd", "lr": 1, "momentum": 0.9}, "lr_schedule": {"name": "step", "warmup": 5}}
    task = {"name": "classification", "params": {"loss": {"name": "cross_entropy", "class_weights": [1, 2.5]}}}
    assert _found(train=train, task=task, model={"name": "cnn", "params": {"channels": [8], "hidden": None}}) == {}


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"model": {"name": "cnnn"}}, "model.name"),
        ({"data": {"name": "digit"}}, "data.name"),
        ({"task": {"name": "regresion"}}, "task.name"),
        ({"train": {"optimizer": {"name": "adamm"}}}, "train.optimizer.name"),
        ({"train": {"lr_schedule": {"name": "cosin"}}}, "train.lr_schedule.name"),
        ({"task": {"name": "regression", "params": {"loss": {"name": "maee"}}}}, "task.params.loss.name"),
        ({"task": {"name": "regression", "params": {"loss": "mse"}}}, "task.params.loss"),
        ({"model": {"name": "cnn", "params": {"channel": [1]}}}, "model.params.channel"),
        ({"model": {"name": "cnn", "params": {"channels": [1, "2"]}}}, "model.params.channels.1"),
        ({"model": {"name": "resnet", "params": {"depth": 20}}}, "model.params.depth"),
        ({"model": {"name": "mlp", "params": {"dropout": float("nan")}}}, "model.params.dropout"),
        ({"data": {"name": "digits", "params": {"seed": True}}}, "data.params.seed"),
        ({"train": {"optimizer": {"betas": [0.9]}}}, "train.optimizer.betas.1"),
        ({"train": {"lr_schedule": {"name": "cosine", "end": 2}}}, "train.lr_schedule.end"),
        ({"train": {"optimizer": {"name": "rprop", "decay_on": "matrices"}}}, "train.optimizer.decay_on"),
        (
            {"train": {"optimizer": {"name": "rprop", "groups": [{"parameters": ["*"], "weight_decay": 0}]}}},
            "train.optimizer.groups.0.weight_decay",
        ),
    ],
)
def test_each_mistake_is_found_at_its_path(changes: dict[str, Any], path: str) -> None:
    assert list(_found(**changes)) == [path]


def test_lengths_in_epochs_are_refused_for_a_stream() -> None:
    data = {"name": "webdataset", "params": {"path": "a.tar"}}
    assert list(_found(data=data)) == ["train.epochs", "train.validate_every", "checkpoint.every"]
    train, checkpoint = {"steps": 5, "validate_every": "2steps"}, {"every": "10m"}
    assert _found(data=data, train=train, checkpoint=checkpoint) == {}
    assert list(_found(data=data, train=train, checkpoint={"every": "0.5ep"})) == ["checkpoint.every"]


def goal(metric: str) -> dict[str, str]:
    return {"metric": metric, "mode": "max"}


HELD_OUT = {"path": "t.csv", "target": "y", "validation": 0, "validation_path": "v.csv"}
NONE_HELD_OUT = {"path": "t.csv", "target": "y", "validation": 0}
F1 = {"name": "classification", "params": {"metrics": ["f1"]}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": goal("val/acuracy")}, "there is no metric 'val/acuracy'"),
        ({"objective": goal("val/mae")}, "there is no metric 'val/mae'"),
        ({"objective": goal("val/accuracy"), "task": F1}, "there is no metric 'val/accuracy'"),
        (
            {"objective": goal("train/accuracy"), "task": {"name": "mine:Task"}, "code": {}},
            "there is no metric 'train/",
        ),
        (
            {"objective": goal("val/loss"), "data": {"name": "digits", "params": {"validation": 0}}},
            "val/loss needs validation data, and there is none: data.params.validation is 0",
        ),
        (
            {"objective": goal("val/loss"), "data": {"name": "csv", "params": NONE_HELD_OUT}},
            "val/loss needs validation",
        ),
        ({"objective": goal("train/loss"), "data": {"name": "csv", "params": NONE_HELD_OUT}}, ""),
        ({"objective": goal("val/loss"), "data": {"name": "csv", "params": HELD_OUT}}, ""),
        ({"objective": goal("val/loss"), "data": {"name": "npz", "params": {"path": "t", "validation": 0}}}, ""),
        ({"objective": goal("val/r2"), "data": {"name": "diabetes"}}, ""),
        ({"objective": goal("val/f1"), "task": F1}, ""),
        ({"objective": goal("val/any"), "data": {"name": "csv", "params": HELD_OUT}}, ""),
        ({"objective": goal("val/any"), "task": {"name": "mine:Task"}, "code": {}}, ""),
    ],
)
def test_a_metric_that_is_waited_for_in_vain_is_told_without_the_data(changes: dict[str, Any], message: str) -> None:
    stopping = {"train": {"early_stopping": changes["objective"]}}
    for path, found in (("objective", _found(**changes)), ("train.early_stopping", _found(**{**changes, **stopping}))):
        assert bool(found) == bool(message)
        assert found.get(f"{path}.metric", "").startswith(message)


def test_a_metric_that_the_learning_rate_waits_for_in_vain_is_told() -> None:
    found = _found(train={"lr_schedule": {"name": "reduce_on_plateau", **goal("val/acuracy")}})
    assert found["train.lr_schedule.metric"].startswith("there is no metric 'val/acuracy'")


def test_all_mistakes_are_found_at_once() -> None:
    found = _found(model={"name": "mlp", "params": {"depth": 3, "dropout": 2}}, data={"name": "csv"})
    assert set(found) == {"model.params.depth", "model.params.dropout", "data.params.path", "data.params.target"}


def test_hints_name_the_closest() -> None:
    problems = check({**GOOD, "model": {"name": "cnn", "params": {"chanels": []}}, "data": {"name": "digit"}})
    assert [problem.hint for problem in problems] == ["did you mean 'channels'?", "did you mean 'digits'?"]


def test_a_parameter_within_a_section_of_its_own_is_checked_too() -> None:
    task = {"name": "reinforcement-learning", "params": {"q_learning": {"target_evry": 3, "memory": 0}}}
    problems = {problem.path: problem for problem in check({**GOOD, "task": task})}
    unknown = problems["task.params.q_learning.target_evry"]
    assert (unknown.message, unknown.hint) == ("unknown parameter", "did you mean 'target_every'?")
    assert "task.params.q_learning.memory" in problems


def test_own_code_is_for_specs_with_code() -> None:
    own = {"name": "my_pkg.nets:Net", "params": {"whatever": object()}}
    assert "the spec has no code" in _found(model=own)["model.name"]
    assert _found(model=own, code={"dir": "."}) == {}
    assert "module:attribute" in _found(model={"name": "my pkg:Net"}, code={"dir": "."})["model.name"]
    assert "no optimizer" in _found(train={"optimizer": {"name": "a:b"}}, code={})["train.optimizer.name"]


def test_what_a_sweep_may_put_in_is_checked_in_its_place() -> None:
    space = {
        "model.params.channels": {"choice": [[8], [8, 0], [8, "x"]]},
        "model.params.dropout": {"dist": "uniform", "low": 0.0, "high": 1.5},
        "model.params.depht": {"choice": [1, 2]},
        "train.optimizer.weight_decay": {"dist": "loguniform", "low": 1e-5, "high": 1e-1},
        "train.epochs": {"choice": ["whatever"]},
    }
    assert set(_found(sweep={"space": space})) == {
        "sweep.space.model.params.channels",
        "sweep.space.model.params.dropout",
        "sweep.space.model.params.depht",
    }


@pytest.mark.parametrize("name", ["adafactor", "rprop"])
def test_an_optimizer_that_needs_whole_matrices_is_refused_where_they_are_sharded(name: str) -> None:
    train, fsdp = {"optimizer": {"name": name}}, {"strategy": "fsdp", "workers": 2}
    assert _found(train=train, resources=fsdp) == {
        "train.optimizer.name": f"{name} needs whole matrices, and resources.strategy fsdp shards them"
    }
    assert _found(train=train, resources={"workers": 2}) == {}
    for space in ({"train.optimizer.name": ["sgd", name]}, {"train.optimizer": [{"name": "sgd"}, {"name": name}]}):
        ((path, values),) = space.items()
        assert list(_found(resources=fsdp, sweep={"space": {path: {"choice": values}}})) == [f"sweep.space.{path}"]


def test_a_sweep_over_names_and_over_required_parameters_is_fine() -> None:
    space = {"model.name": {"choice": ["cnn", "mlp"]}, "data.params.target": {"choice": ["a", "b"]}}
    assert _found(sweep={"space": space}, data={"name": "csv", "params": {"path": "t.csv"}}) == {}
    assert list(_found(sweep={"space": {"model.name": {"choice": ["cnn", "cnm"]}}})) == ["sweep.space.model.name"]


def test_the_index_and_the_entry_refuse_alike() -> None:
    params = {"channels": [0, 1.5], "hidden": "wide", "dropout": 1, "activation": "swish", "more": 1}
    with pytest.raises(SpecError) as caught:
        build_model(Component(name="cnn", params=params), DataInfo(Field((1, 8, 8)), Field((), classes=2)))
    built = {problem.path: (problem.message, problem.hint) for problem in caught.value.problems}
    indexed = check({"model": {"name": "cnn", "params": params}})
    assert {problem.path: (problem.message, problem.hint) for problem in indexed} == built


def test_entries_are_listed_and_found_by_name() -> None:
    assert [one.name for one in entries("lr_schedule")][:3] == ["constant", "cosine", "cosine_restarts"]
    assert entry("architecture", "resnet").parameter_count == 11_689_512
    with pytest.raises(NotFoundError, match="no lr schedule is named 'cosin'; did you mean 'cosine'"):
        entry("lr_schedule", "cosin")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=8), below, max_size=3),
    max_leaves=6,
)
places = st.sampled_from(
    [
        "model", "model.name", "model.params", "model.params.channels", "data", "data.params", "task", "task.params",
        "task.params.loss", "train", "train.optimizer", "train.optimizer.betas", "train.lr_schedule", "code", "sweep",
        "sweep.space", "sweep.space.model", "sweep.model.params",
    ]
)  # fmt: skip


@given(st.lists(st.tuples(places, values), max_size=4))
def test_no_tree_breaks_the_check(changes: list[tuple[str, Any]]) -> None:
    tree: Any = {**GOOD, "model": {"name": "cnn"}, "task": {"name": "classification"}, "sweep": {"space": {}}}
    for path, value in changes:
        tree = _put(tree, path.split("."), value)
    for problem in check(tree) if isinstance(tree, dict) else ():
        assert problem.path
        assert problem.message


@given(
    st.dictionaries(
        st.sampled_from(["model.name", "train.optimizer.name", "model.params.channels", "x", "model.params.a.b"]),
        values,
    )
)
def test_no_sweep_space_breaks_the_check(space: dict[str, Any]) -> None:
    for distribution in (space, {path: {"choice": value} for path, value in space.items()}):
        assert all(problem.path for problem in check({**GOOD, "sweep": {"space": distribution}}))


def _put(tree: Any, steps: list[str], value: Any) -> Any:
    if not steps:
        return value
    below = tree if isinstance(tree, dict) else {}
    return {**below, steps[0]: _put(below.get(steps[0]), steps[1:], value)}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm/resnet50", None),
        ("tim/resnet50", "no architecture is named 'tim/resnet50'"),
        ("timm/", "no architecture is named 'timm/'"),
        ("keras/nets:make", "this is your own code, and the spec has no code"),
        ("keras/dense", "expected a name of the catalog or module:attribute, got 'dense'"),
    ],
)
def test_a_librarys_model_is_known_by_its_library(name: str, said: str | None) -> None:
    assert _found(model={"name": name, "params": {"whatever": 1}}) == ({"model.name": said} if said else {})


def test_a_whole_section_in_the_place_of_a_name_is_left_to_the_specs_own_check() -> None:
    space = {"train.optimizer.name": {"choice": [{"name": "sgd"}, {"name": "adam"}]}}
    assert _found(objective={"metric": "val/accuracy", "mode": "max"}, sweep={"space": space}) == {}


def test_a_keras_model_is_not_sharded() -> None:
    model = {"name": "keras/nets:make"}
    found = _found(model=model, code={"dir": "."}, resources={"strategy": "fsdp", "workers": 2})
    assert found == {"resources.strategy": "Keras models cannot be sharded"}


def test_an_optimizer_that_goes_over_a_batch_again_takes_no_phases() -> None:
    tree = {"task": {"name": "adversarial"}, "train": {"optimizer": {"name": "lbfgs", "lr": 1.0}}}
    assert [(one.path, one.value) for one in check(tree)] == [("train.optimizer.name", "lbfgs")]
    assert not check({**tree, "task": {"name": "variational"}})
