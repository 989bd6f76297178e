"""From a job spec's names to built things, and what is said where that cannot be."""

from __future__ import annotations

import re
import sys
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from epochal.catalog.build import build_model, build_optimizer, build_task, load_data
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.providers import PROVIDERS
from epochal.errors import CodeError, NotFoundError, SpecError
from epochal.spec.job import Optimizer
from epochal.spec.section import Component

IMAGES = DataInfo(Field((1, 8, 8)), Field((), torch.int64, classes=10))
VECTORS = DataInfo(Field((5,)), Field((), torch.int64, classes=3))
TOKENS = DataInfo(Field((7,), torch.int64, classes=30), Field((), torch.int64, classes=3))
REAL = DataInfo(Field((5,)), Field((2,)))

OWN_CODE = """
import torch
from torch import nn
from epochal.catalog.data import DataInfo, Field, LoadedData, TensorSplit
from epochal.catalog.task import Loss

class Net(nn.Module):
    def __init__(self, hidden, info, depth=1):
        super().__init__()
        self.layer = nn.Linear(info.input.shape[0], hidden)

class Plain(nn.Linear):
    pass

def fives(count, folder=None):
    split = TensorSplit({"input": torch.ones(count, 5), "target": torch.zeros(count, dtype=torch.int64)})
    return LoadedData(split, None, DataInfo(Field((5,)), Field((), torch.int64, 2)), "0", str(folder))

class Zero:
    def loss(self, model, batch):
        outputs = model(batch["input"])
        return Loss(outputs.sum() * 0, None, outputs)
    def metrics(self):
        return {}

def nothing():
    return None

CONSTANT = 1
"""


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_nets.py").write_text(OWN_CODE)
    (tmp_path / "own_broken.py").write_text("import does_not_exist_anywhere")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for module in ("own_nets", "own_broken"):
        sys.modules.pop(module, None)


def _model(name: str, info: DataInfo = IMAGES, **params: Any) -> nn.Module:
    return build_model(Component(name=name, params=params), info)


@pytest.mark.parametrize(
    ("name", "info"),
    [
        ("mlp", IMAGES),
        ("mlp", REAL),
        ("cnn", IMAGES),
        ("resnet", IMAGES),
        ("recurrent", IMAGES),
        ("recurrent", VECTORS),
        ("recurrent", TOKENS),
        ("transformer", IMAGES),
        ("transformer", VECTORS),
        ("transformer", REAL),
        ("transformer", TOKENS),
    ],
)
def test_architectures_take_every_input_that_makes_sense(name: str, info: DataInfo) -> None:
    assert _model(name, info)(info.example(2)["input"]).shape == (2, info.target.width)


@pytest.mark.parametrize(("name", "info"), [("mlp", TOKENS), ("cnn", VECTORS), ("resnet", TOKENS)])
def test_an_architecture_that_cannot_take_the_data_says_so(name: str, info: DataInfo) -> None:
    with pytest.raises(SpecError) as caught:
        _model(name, info)
    assert caught.value.problems[0].path == "model"
    assert "takes" in caught.value.problems[0].message


@pytest.mark.parametrize("name", ["mlp", "cnn", "recurrent", "transformer", "bert", "vit", "autoencoder", "forecaster"])
@pytest.mark.parametrize(
    ("info", "said"),
    [
        (DataInfo(Field((0,)), VECTORS.target), r"the data's input is of no values: its shape is \(0,\)"),
        (DataInfo(Field((3, 0, 4)), VECTORS.target), "the data's input is of no values"),
        (DataInfo(Field((0,), torch.int64, 5), VECTORS.target), "the data's input is of no values"),
        (DataInfo(Field((5,)), Field((), torch.int64, 0)), "the data's target is of no classes"),
        (DataInfo(Field((5,)), Field((0,))), "the data's target is of no values"),
        (DataInfo(Field(()), VECTORS.target), "one number without a dimension"),
        (DataInfo(Field((5,), torch.float64), VECTORS.target), "is of torch.float64, and a model of the catalog takes"),
    ],
)
def test_data_of_nothing_is_told_before_a_layer_does(name: str, info: DataInfo, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        _model(name, info)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("mlp", {"hidden": [], "norm": "none"}),
        ("mlp", {"hidden": [4, 4], "norm": "layer", "dropout": 0.5}),
        ("mlp", {"norm": "batch", "activation": "tanh"}),
        ("cnn", {"channels": [4, 4, 4, 4, 4, 4], "hidden": None}),
        ("cnn", {"channels": [4], "norm": "batch", "dropout": 0.1, "kernel_size": 5}),
        ("cnn", {"channels": [4, 4, 4, 4, 4], "pool": "stride"}),
        ("cnn", {"pool": "avg", "kernel_size": 1}),
        ("resnet", {"depth": 50, "stem": "imagenet"}),
        ("recurrent", {"cell": "gru", "bidirectional": True, "layers": 2, "dropout": 0.2}),
        ("recurrent", {"cell": "rnn"}),
        ("transformer", {"feedforward": 8, "dropout": 0.1, "heads": 2, "layers": 1, "activation": "relu"}),
    ],
)
def test_parameters_other_than_the_defaults_build(name: str, params: dict[str, Any]) -> None:
    assert _model(name, **params)(IMAGES.example(3)["input"]).shape == (3, 10)


def test_odd_images_fit_whatever_halves_them() -> None:
    odd = DataInfo(Field((2, 7, 13)), Field((), torch.int64, classes=4))
    for pool in ("max", "avg", "stride"):
        assert _model("cnn", odd, channels=[4, 4, 4], pool=pool)(odd.example(2)["input"]).shape == (2, 4)


def test_every_wrong_parameter_is_told_with_its_path() -> None:
    with pytest.raises(SpecError) as caught:
        _model("cnn", chanels=[8], channels=[8, 0], dropout="much")
    found = {problem.path: problem for problem in caught.value.problems}
    assert set(found) == {"model.params.chanels", "model.params.channels.1", "model.params.dropout"}
    assert "'channels'" in found["model.params.chanels"].hint


def test_parameters_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(SpecError, match="not a multiple of heads"):
        _model("transformer", width=30, heads=4)


def test_an_unknown_name_is_not_found_and_the_closest_is_named() -> None:
    with pytest.raises(NotFoundError, match="did you mean 'resnet'"):
        _model("resnett")
    with pytest.raises(NotFoundError, match="dataset"):
        load_data(Component(name="digitz"), Path())


@pytest.mark.usefixtures("own_code")
def test_own_classes_get_their_params_and_the_info_they_ask_for() -> None:
    net = _model("own_nets:Net", VECTORS, hidden=4)
    assert net.layer.weight.shape == (4, 5)
    plain = _model("own_nets:Plain", VECTORS, in_features=2, out_features=1)
    assert isinstance(plain, nn.Linear)


@pytest.mark.usefixtures("own_code")
def test_own_data_and_tasks_work_alike() -> None:
    data = load_data(Component(name="own_nets:fives", params={"count": 3}), Path("/here"))
    assert len(data.train) == 3
    assert data.source == "/here"
    task = build_task(Component(name="own_nets:Zero"), Component(name="own_nets:fives"), data.info)
    assert task.loss(nn.Linear(5, 2), data.train.fetch([0])).total == 0


@pytest.mark.usefixtures("own_code")
@pytest.mark.parametrize(
    ("name", "params", "said"),
    [
        ("own_nots:Net", {}, "there is no module 'own_nots'"),
        ("own_nets:Nett", {}, "has no 'Nett'"),
        ("own_nets:Net.inner", {}, "has no 'inner'"),
        ("own_broken:Net", {}, "No module named 'does_not_exist_anywhere'"),
        ("own_nets:CONSTANT", {}, "is not a class or function"),
        ("own_nets:nothing", {}, "made NoneType, and has to make Module"),
    ],
)
def test_own_code_that_is_not_there_is_named(name: str, params: dict[str, Any], said: str) -> None:
    with pytest.raises(CodeError, match=said):
        _model(name, VECTORS, **params)


@pytest.mark.usefixtures("own_code")
def test_params_that_an_own_class_does_not_take_are_a_problem_of_the_spec() -> None:
    with pytest.raises(SpecError) as caught:
        _model("own_nets:Net", VECTORS, hiden=4)
    problem = caught.value.problems[0]
    assert problem.path == "model.params"
    assert problem.hint == "it takes: hidden, depth"


def test_the_datasets_own_task_is_the_default() -> None:
    assert type(build_task(None, Component(name="digits"), IMAGES)).__name__ == "Classification"
    assert type(build_task(None, Component(name="csv"), REAL)).__name__ == "Regression"
    assert type(build_task(None, Component(name="csv"), VECTORS)).__name__ == "Classification"


@pytest.mark.parametrize(
    ("name", "params", "info", "said"),
    [
        ("regression", {}, VECTORS, "regression needs real values"),
        ("classification", {}, REAL, "classification needs one class"),
        ("classification", {"loss": {"name": "mse"}}, VECTORS, "not for class targets"),
        ("classification", {"loss": {"name": "cross_entropy", "class_weights": [1.0]}}, VECTORS, "1 values for 3"),
        ("classification", {"loss": {"name": "cross_entropy", "smoothing": 1}}, VECTORS, "task.params.loss.smoothing"),
        ("classification", {"metrics": ["top5"]}, VECTORS, "top5 needs 5 classes"),
        ("regression", {"metrics": ["r2"]}, REAL, "r2 needs one value"),
    ],
)
def test_a_task_that_does_not_fit_says_why(name: str, params: dict[str, Any], info: DataInfo, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        build_task(Component(name=name, params=params), Component(name="synthetic"), info)


def test_class_weights_weigh_the_mean() -> None:
    params = {"loss": {"name": "cross_entropy", "class_weights": [1.0, 2.0, 0.5]}}
    task = build_task(Component(name="classification", params=params), Component(name="wine"), VECTORS)
    batch = {"input": torch.zeros(3, 5), "target": torch.tensor([0, 1, 1])}
    assert task.loss(nn.Linear(5, 3), batch).weight == 5.0


def test_all_metrics_of_classification_work() -> None:
    metrics = ["accuracy", "top5", "f1", "precision", "recall", "auroc"]
    task = build_task(Component(name="classification", params={"metrics": metrics}), Component(name="digits"), IMAGES)
    collection = task.metrics()
    outputs = torch.eye(10)[:8] * 3
    collection.update(outputs, torch.arange(8))
    found = collection.compute()
    assert set(found) == set(metrics)
    assert found["accuracy"] == 1.0
    assert found["top5"] == 1.0
    assert found["auroc"] == 1.0, "two of the classes have no sample, and do not count"


def test_auroc_does_not_depend_on_the_batches() -> None:
    params = {"metrics": ["auroc"]}
    task = build_task(Component(name="classification", params=params), Component(name="digits"), IMAGES)
    outputs = torch.rand(60, 10, generator=torch.Generator().manual_seed(0)) * 2
    outputs[::2] /= 2  # of some samples they could be probabilities
    found = []
    for batch in (60, 1):
        collection = task.metrics()
        for part, target in zip(outputs.split(batch), torch.arange(60).remainder(10).split(batch), strict=True):
            collection.update(part, target)
        found.append(collection.compute()["auroc"])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("extra", "path"), [({"beta": 1}, "train.optimizer.beta"), ({"betas": [0.9, 1.5]}, "train.optimizer.betas.1")]
)
def test_wrong_optimizer_parameters_are_told(extra: dict[str, Any], path: str) -> None:
    with pytest.raises(SpecError) as caught:
        build_optimizer(Optimizer(name="adam", **extra), dict(nn.Linear(1, 1).named_parameters()))
    assert [problem.path for problem in caught.value.problems] == [path]


def test_torchs_own_refusal_is_a_problem_of_the_spec() -> None:
    with pytest.raises(SpecError, match="Nesterov momentum requires a momentum"):
        build_optimizer(Optimizer(name="sgd", nesterov=True), dict(nn.Linear(1, 1).named_parameters()))


def test_step_sizes_the_wrong_way_round_are_told() -> None:
    """Each would be the least."""
    chosen = Optimizer.model_validate({"name": "rprop", "step_sizes": [5.0, 1.0]})
    with pytest.raises(SpecError, match="step_sizes: the least, 5, is above the greatest, 1"):
        build_optimizer(chosen, dict(nn.Linear(1, 1).named_parameters()))


def named_layers() -> nn.Sequential:
    """Parameters ``body.weight``, ``body.bias``, ``norm.weight``, ``norm.bias``, ``head.weight`` and ``head.bias``."""
    return nn.Sequential(OrderedDict(body=nn.Linear(3, 3), norm=nn.LayerNorm(3), head=nn.Linear(3, 2)))


def grouped(**optimizer: Any) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of each parameter, by its name."""
    named = dict(named_layers().named_parameters())
    names = {parameter: name for name, parameter in named.items()}
    groups = build_optimizer(Optimizer.model_validate(optimizer), named).param_groups
    return {names[one]: (group["lr"], group["weight_decay"]) for group in groups for one in group["params"]}


def test_weight_decay_is_for_matrices_alone_in_one_line() -> None:
    found = grouped(name="adamw", lr=0.1, weight_decay=0.5, decay_on="matrices")
    assert {name for name, (_, decay) in found.items() if decay == 0.5} == {"body.weight", "head.weight"}
    assert {name for name, (_, decay) in found.items() if decay == 0.0} == {
        "body.bias", "norm.weight", "norm.bias", "head.bias",
    }  # fmt: skip
    assert {rate for rate, _ in found.values()} == {0.1}


def test_a_parameter_is_in_the_first_group_that_names_it() -> None:
    body, biases = {"parameters": ["body.*"], "lr": 0.01}, {"parameters": ["*.bias", "norm.*"], "weight_decay": 0.0}
    found = grouped(name="sgd", lr=0.1, weight_decay=0.5, groups=[body, biases])
    assert found == {
        "body.weight": (0.01, 0.5), "body.bias": (0.01, 0.5), "norm.weight": (0.1, 0.0), "norm.bias": (0.1, 0.0),
        "head.weight": (0.1, 0.5), "head.bias": (0.1, 0.0),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("patterns", "path", "message"),
    [
        ([["boddy.*"]], "train.optimizer.groups.0.parameters.0", "no parameter that is trained matches 'boddy.*'"),
        ([["*"], ["head.*"]], "train.optimizer.groups.1.parameters", "groups before it have all parameters"),
    ],
)
def test_a_group_of_nothing_is_refused(patterns: list[list[str]], path: str, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)) as caught:
        grouped(groups=[{"parameters": one, "lr": 0.1} for one in patterns])
    assert [problem.path for problem in caught.value.problems] == [path]


def test_a_library_that_is_not_installed_is_told_with_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROVIDERS, "timm", replace(PROVIDERS["timm"], module="no_such_module"))
    with pytest.raises(SpecError) as caught:
        _model("timm/resnet50", IMAGES)
    assert caught.value.problems[0].message == "timm/resnet50 needs no_such_module, which is not installed here"
    assert caught.value.problems[0].hint == "pip install 'epochal[timm]'"


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("bert", {}),
        ("transformer", {}),
        ("recurrent", {}),
        ("recurrent", {"cell": "gru", "bidirectional": True, "layers": 2}),
    ],
)
def test_what_follows_a_sequence_says_nothing(name: str, params: dict[str, Any]) -> None:
    model = _model(name, TOKENS, padding=0, **params).eval()
    shorter = DataInfo(Field((4,), torch.int64, classes=30), TOKENS.target)
    alone = _model(name, shorter, padding=0, **params).eval()
    alone.load_state_dict({key: one[:4] if key == "positions" else one for key, one in model.state_dict().items()})
    tokens = torch.tensor([[3, 0, 5, 7, 0, 0, 0], [2, 9, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0]])
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), alone(tokens[:, :4]))
    with pytest.raises(SpecError, match="padding is the token 30, and there are 30 kinds"):
        _model(name, TOKENS, padding=30)
