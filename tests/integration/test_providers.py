"""Models of other libraries: they train as the catalog's own do. Each part needs its extra."""

from __future__ import annotations

import copy
import random
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from epochal.catalog.architectures.gnn import INPUTS, graph_fields
from epochal.catalog.build import build_model, build_task, load_data
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.providers import PROVIDERS
from epochal.errors import NotFoundError, SpecError
from epochal.spec.job import JobSpec
from epochal.spec.section import Component
from epochal.training.plan import plan

SENTENCES = DataInfo(Field((12,), torch.int64, 50), Field((), torch.int64, 5))
TOKENS = DataInfo(Field((12,), torch.int64, 50), Field((12,), torch.int64, 50))
TAGGED = DataInfo(Field((12,), torch.int64, 50), Field((12,), torch.int64, 7))
SCORED = DataInfo(Field((12,), torch.int64, 50), Field(()))
IMAGES = DataInfo(Field((3, 32, 32)), Field((), torch.int64, 10))
MASKS = DataInfo(Field((3, 32, 32)), Field((32, 32), torch.int64, 4))
GRAPHS = DataInfo(Field((6, 4)), Field((), torch.int64, 3), graph_fields(6), INPUTS)
NODES = DataInfo(Field((6, 4)), Field((6,), torch.int64, 3), graph_fields(6), INPUTS)

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
CASES: list[tuple[str, dict[str, Any], DataInfo]] = [
    ("transformers/bert", SMALL, SENTENCES),
    ("transformers/bert", SMALL, TAGGED),
    ("transformers/distilbert", {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}, SCORED),
    ("transformers/gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 2}, TOKENS),
    ("transformers/gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 2}, SENTENCES),
    ("transformers/llama", {**SMALL, "num_key_value_heads": 1}, TOKENS),
    ("transformers/vit", {**SMALL, "patch_size": 8}, IMAGES),
    ("transformers/resnet", {"hidden_sizes": [8, 16], "depths": [1, 1], "embedding_size": 8}, IMAGES),
    ("pyg/GCN", {"hidden_channels": 8}, GRAPHS),
    ("pyg/GIN", {"hidden_channels": 8}, NODES),
    ("torchvision/resnet18", {}, IMAGES),
    ("torchvision/googlenet", {"init_weights": False}, IMAGES),
    ("torchvision/lraspp_mobilenet_v3_large", {}, MASKS),
    ("timm/resnet10t", {}, IMAGES),
]


def _build(name: str, params: dict[str, Any], info: DataInfo) -> nn.Module:
    library = name.partition("/")[0]
    if find_spec(PROVIDERS[library].module) is None:
        pytest.skip(f"needs pip install 'epochal[{library}]'")
    torch.manual_seed(0)
    random.seed(0)
    return build_model(Component(name=name, params=params), info)


@pytest.mark.parametrize(("name", "params", "info"), CASES, ids=[f"{one[0]}-{at}" for at, one in enumerate(CASES)])
def test_a_model_gives_what_the_target_needs_and_learns_from_it(
    name: str, params: dict[str, Any], info: DataInfo
) -> None:
    model = _build(name, params, info)
    batch = info.example(3)
    outputs = info.call(model, batch)
    assert outputs.reshape(3, *info.target.predicted).isfinite().all()
    outputs.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert info.call(model.eval(), info.example(2)).shape[0] == 2
    same = _build(name, params, info)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), same.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "info", "said"),
    [
        ("transformers/bertt", SENTENCES, "did you mean 'bert'"),
        ("transformers/bert", GRAPHS, "is not known to take an input"),
        ("transformers/t5", SENTENCES, "encoder with a decoder"),
        ("transformers/xlnet", TOKENS, "sees each token that it is to predict"),
        ("pyg/GCNN", GRAPHS, "did you mean 'GCN'"),
        ("pyg/GCN", IMAGES, "takes graphs"),
        ("torchvision/resnet17", IMAGES, "did you mean"),
        ("timm/resnet17", IMAGES, "did you mean"),
    ],
)
def test_what_cannot_be_made_is_told(name: str, info: DataInfo, said: str) -> None:
    with pytest.raises((SpecError, NotFoundError)) as caught:
        _build(name, {}, info)
    assert said in str(caught.value)


@pytest.mark.parametrize(("name", "info"), [("transformers/vit", IMAGES), ("transformers/bert", SENTENCES)])
def test_padding_is_a_token(name: str, info: DataInfo) -> None:
    with pytest.raises(SpecError, match="padding: 50 is no token id of the input"):
        _build(name, {"padding": 50}, info)


def test_parameters_that_a_model_does_not_take_are_a_problem_of_the_spec() -> None:
    with pytest.raises(SpecError, match="pyg/GCN cannot be made: TypeError"):
        _build("pyg/GCN", {"hidden_chanels": 8}, GRAPHS)


def test_what_follows_a_sentence_says_nothing() -> None:
    model = _build("transformers/bert", {**SMALL, "padding": 0}, SENTENCES).eval()
    tokens = SENTENCES.example(1)["input"].clamp(min=1)
    tokens[:, 8:] = 0
    embeddings = model.get_parameter("model.bert.embeddings.word_embeddings.weight")
    with torch.no_grad():
        before = model(tokens)
        embeddings[0] += 1.0
        torch.testing.assert_close(model(tokens), before)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_no_token_sees_the_next_one_which_it_is_to_predict(kind: str) -> None:
    small = {"n_embd": 32, "n_layer": 2, "n_head": 2} if kind == "gpt2" else SMALL
    model, tokens = _build(f"transformers/{kind}", small, TOKENS).eval(), TOKENS.example(1)["input"]
    other = tokens.clone()
    other[:, 6:] = (tokens[:, 6:] + 1) % 50
    torch.testing.assert_close(model(tokens)[:, :6], model(other)[:, :6])


def test_where_nothing_is_padding_a_decoder_reads_the_last_token_whichever_it_is() -> None:
    model = _build("transformers/gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 2}, SENTENCES).eval()
    tokens = SENTENCES.example(1)["input"]
    tokens[:, -1] = 49  # the last of the vocabulary
    with torch.no_grad():
        assert not torch.allclose(model(tokens), model(tokens[:, :-1]))


def test_a_local_folder_gives_its_weights_and_another_head(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs pip install 'epochal[transformers]'")
    config = transformers.AutoConfig.for_model("bert", vocab_size=50, num_labels=2, **SMALL)
    theirs = transformers.AutoModelForSequenceClassification.from_config(config)
    theirs.save_pretrained(tmp_path)
    ours = _build("transformers/bert", {"path": str(tmp_path)}, SENTENCES)
    for name, weight in theirs.state_dict().items():
        if not name.startswith("classifier"):
            assert torch.equal(ours.state_dict()[f"model.{name}"], weight)
    assert ours(SENTENCES.example(2)["input"]).shape == (2, 5)
    more = DataInfo(Field((12,), torch.int64, 60), SENTENCES.target)
    with pytest.raises(SpecError, match="holds a model of 50 tokens, and the data has 60"):
        _build("transformers/bert", {"path": str(tmp_path)}, more)
    with pytest.raises(SpecError, match=r"is no folder with a config.json"):
        _build("transformers/bert", {"path": "relative"}, SENTENCES)


NAMES = {
    "gcn": {"linear.weight": "lin.weight", "linear.bias": "bias"},
    "sage": {"neighbours.weight": "lin_l.weight", "neighbours.bias": "lin_l.bias", "own.weight": "lin_r.weight"},
    "gat": {"linear.weight": "lin.weight", "source": "att_src", "target": "att_dst", "bias": "bias"},
}


@pytest.mark.parametrize(("layer", "theirs"), [("gcn", "GCN"), ("sage", "GraphSAGE"), ("gat", "GAT")])
def test_graph_layers_of_the_catalog_are_those_of_pytorch_geometric(layer: str, theirs: str) -> None:
    other = _build(f"pyg/{theirs}", {"hidden_channels": 8}, NODES).eval()
    ours = build_model(Component(name="gnn", params={"layer": layer, "hidden": 8, "heads": 1}), NODES).eval()
    weights = other.state_dict()
    ours.load_state_dict(
        {
            f"layers.{place}.{own}": weights[f"model.convs.{place}.{name}"].reshape(
                ours.get_parameter(f"layers.{place}.{own}").shape
            )
            for place in (0, 1)
            for own, name in NAMES[layer].items()
        }
    )
    batch = NODES.example(5)
    batch["nodes"][:, 0] = 1
    loops = torch.eye(6, dtype=torch.uint8)
    batch["adjacency"] = batch["adjacency"] & (1 - loops)
    there = batch["nodes"].bool()
    with torch.no_grad():
        torch.testing.assert_close(
            NODES.call(ours, batch)[there], NODES.call(other, batch)[there], atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("norm", ["batch_norm", "graph_norm", "layer_norm"])
def test_a_norm_is_of_a_graphs_own_nodes(norm: str) -> None:
    model = _build("pyg/GCN", {"hidden_channels": 8, "norm": norm, "dropout": 0.0}, GRAPHS)
    batch = GRAPHS.example(3)
    batch["nodes"][:, :4], batch["nodes"][:, 4:] = 1, 0
    whole = GRAPHS.call(model, batch)
    fewer = {**batch, "input": batch["input"][:, :4], "nodes": batch["nodes"][:, :4]}
    fewer["adjacency"] = batch["adjacency"][:, :4, :4]
    torch.testing.assert_close(GRAPHS.call(model, fewer), whole)
    model.eval()
    together = GRAPHS.call(model, batch)[:1]
    torch.testing.assert_close(GRAPHS.call(model, {name: one[:1] for name, one in batch.items()}), together)


CLASSIC = """
import keras


def classic(end="softmax"):
    return keras.Sequential([
        keras.layers.Input((8, 8)),
        keras.layers.Flatten(),
        keras.layers.Dense(128, activation="relu"),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(10, activation=end),
    ])


def convolutional():
    return keras.Sequential([
        keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(10),
    ])


def nested():
    return keras.Sequential([keras.layers.Input((8, 8)), classic()])


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.layer = keras.layers.Dense(10)

    def call(self, x):
        return self.layer(x)


def nothing():
    return 3
"""


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_keras.py").write_text(CLASSIC)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def own_keras(own_code: Path) -> Path:
    if find_spec("keras") is None:  # an import would look for the backend that Keras has by default
        pytest.skip("needs pip install 'epochal[keras]'")
    return own_code


def _digits_accuracy(model: nn.Module, folder: Path) -> float:
    data = load_data(Component(name="digits"), folder)
    task = build_task(None, Component(name="digits"), data.info)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(12):
        for indices in torch.randperm(len(data.train), generator=generator).split(64):
            optimizer.zero_grad()
            loss = task.loss(model, data.train.fetch(indices.tolist()))
            (loss.total / len(indices)).backward()
            optimizer.step()
    assert data.validation is not None
    batch = data.validation.fetch(range(len(data.validation)))
    with torch.no_grad():
        predicted: Tensor = model.eval()(batch["input"]).argmax(dim=1)
    return float((predicted == batch["target"]).float().mean())


def test_the_classic_keras_model_trains_as_written(own_keras: Path) -> None:
    digits = DataInfo(Field((1, 8, 8)), Field((), torch.int64, 10))
    model = _build("keras/own_keras:classic", {}, digits)
    assert sum(parameter.numel() for parameter in model.parameters()) == 64 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10
    outputs = model(digits.example(3)["input"])
    torch.testing.assert_close(outputs.exp().sum(dim=1), torch.ones(3))
    assert model(digits.example(0)["input"]).shape == (0, 10)
    nested = _build("keras/own_keras:nested", {}, digits)(digits.example(3)["input"])
    torch.testing.assert_close(nested.exp().sum(dim=1), torch.ones(3))
    same = _build("keras/own_keras:classic", {}, digits)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), same.parameters(), strict=True))
    twin = copy.deepcopy(model)
    torch.testing.assert_close(twin(digits.example(3)["input"]), outputs)
    other = _build("keras/own_keras:classic", {"end": None}, digits)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(digits.example(3)["input"]).log_softmax(dim=1), outputs)
    assert _digits_accuracy(model, own_keras) > 0.95


def test_a_keras_model_of_images_takes_them_channels_last_and_knows_when_it_trains(own_keras: Path) -> None:
    model = _build("keras/own_keras:convolutional", {}, IMAGES)
    batch = IMAGES.example(4)["input"]
    assert model.model.layers[0].kernel.shape == (3, 3, 3, 4)
    assert not torch.equal(model(batch), model(batch))
    assert torch.equal(model.eval()(batch), model(batch))


def test_workers_drop_other_numbers_each_and_go_on_with_the_same(own_keras: Path) -> None:
    """By torch's generator: that of each worker has a seed of its own, and a checkpoint keeps its state."""
    model = _build("keras/own_keras:convolutional", {}, IMAGES)
    images, before = IMAGES.example(8)["input"], copy.deepcopy(model.state_dict())

    def outputs(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return model(images).detach()

    first, other, again = outputs(1), outputs(2), outputs(1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_a_keras_function_makes_is_looked_at(own_keras: Path) -> None:
    with pytest.raises(SpecError, match=r"made a int, and has to make a keras.Model"):
        _build("keras/own_keras:nothing", {}, IMAGES)
    with pytest.raises(SpecError, match=r"made a Own, which does not say what inputs it takes"):
        _build("keras/own_keras:Own", {}, IMAGES)
    with pytest.raises(SpecError, match=r"takes inputs \(8, 8\), and the data's are \(3, 32, 32\)"):
        _build("keras/own_keras:classic", {}, IMAGES)


@pytest.mark.parametrize(
    ("model", "data"),
    [
        ({"name": "keras/own_keras:classic"}, {"name": "digits"}),
        ({"name": "pyg/GCN"}, {"name": "molecules"}),
        ({"name": "transformers/bert", "params": SMALL}, {"name": "labelled-text"}),
    ],
    ids=["keras", "pyg", "transformers"],
)
def test_a_plan_looks_at_a_librarys_model(own_code: Path, model: dict[str, Any], data: dict[str, Any]) -> None:
    library = model["name"].partition("/")[0]
    if find_spec(PROVIDERS[library].module) is None:
        pytest.skip(f"needs pip install 'epochal[{library}]'")
    spec = {
        "version": 1,
        "name": "job",
        "code": {"dir": "."},
        "model": model,
        "data": data,
        "resources": {"workers": 2},
    }
    planned = plan(JobSpec.model_validate({**spec, "train": {"epochs": 1, "global_batch_size": 32}}), own_code)
    assert planned.total_steps > 0
