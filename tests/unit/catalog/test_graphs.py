"""Graphs: what the layers compute, and what the datasets hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx
import pytest
import torch
from torch import Tensor, nn

from epochal.catalog.architectures.gnn import INPUTS, graph_fields
from epochal.catalog.build import build_model, build_task, load_data
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.datasets.molecules import CARBON, NITROGEN, OXYGEN
from epochal.errors import SpecError
from epochal.spec.section import Component

LAYERS = ("gcn", "sage", "gat")
NODES = DataInfo(Field((5, 3)), Field((5,), torch.int64, 2), graph_fields(5), INPUTS)
GRAPHS = DataInfo(Field((5, 3)), Field((), torch.int64, 2), graph_fields(5), INPUTS)


def _model(info: DataInfo, **params: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_model(Component(name="gnn", params=params), info).eval()


def _graph() -> tuple[Tensor, Tensor, Tensor]:
    """Of four nodes, 0 - 1 - 2 and 1 - 3, and one of padding."""
    adjacency = torch.zeros(1, 5, 5, dtype=torch.uint8)
    for one, other in ((0, 1), (1, 2), (1, 3)):
        adjacency[0, one, other] = adjacency[0, other, one] = 1
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, 5, 3, generator=generator), adjacency, torch.tensor([[1, 1, 1, 1, 0]], dtype=torch.uint8)


def test_a_graph_convolution_is_the_papers_formula() -> None:
    x, adjacency, nodes = _graph()
    model = _model(NODES, layer="gcn", layers=1)
    weight, bias = model.get_parameter("layers.0.linear.weight"), model.get_parameter("layers.0.linear.bias")
    with torch.no_grad():
        found = model(x, adjacency, nodes)[0]
        degrees = [2, 4, 2, 2]  # with the edge to itself
        for node, around in enumerate(([0, 1], [0, 1, 2, 3], [1, 2], [1, 3])):
            mean = sum(x[0, one] / (degrees[node] * degrees[one]) ** 0.5 for one in around)
            torch.testing.assert_close(found[node], weight @ mean + bias)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("info", [NODES, GRAPHS], ids=["nodes", "graphs"])
def test_the_order_of_nodes_is_that_of_the_outputs_and_padding_says_nothing(layer: str, info: DataInfo) -> None:
    x, adjacency, nodes = _graph()
    model = _model(info, layer=layer, hidden=4, heads=2)
    order = torch.tensor([3, 1, 0, 2, 4])
    with torch.no_grad():
        outputs = model(x, adjacency, nodes)
        reordered = model(x[:, order], adjacency[:, order][:, :, order], nodes[:, order])
        torch.testing.assert_close(reordered, outputs[:, order] if info is NODES else outputs)
        x[:, 4] = 9.0
        adjacency[:, 4] = 1
        adjacency[:, :, 4] = 1
        padded = model(x, adjacency, nodes)
    torch.testing.assert_close(padded[:, :4] if info is NODES else padded, outputs[:, :4] if info is NODES else outputs)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_node_counts_as_many_edges_away_as_there_are_layers(layer: str) -> None:
    x, adjacency, nodes = _graph()
    with torch.no_grad():
        for layers, changes in ((1, False), (2, True)):
            model = _model(NODES, layer=layer, layers=layers, activation="tanh")
            other = x.clone()
            other[0, 2] += 1.0
            same = torch.equal(model(x, adjacency, nodes)[0, 0], model(other, adjacency, nodes)[0, 0])
            assert same is not changes


@pytest.mark.parametrize(
    ("info", "said"),
    [
        (DataInfo(Field((5, 3)), Field((5,), torch.int64, 2)), "gnn is called with input, adjacency and nodes"),
        (DataInfo(Field((5, 3)), Field((2,)), graph_fields(5), INPUTS), "each graph or node"),
    ],
)
def test_data_without_graphs_is_refused(info: DataInfo, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        _model(info)


def test_the_karate_club_is_that_of_the_paper(tmp_path: Path) -> None:
    data = load_data(Component(name="karate-club"), tmp_path)
    assert data.validation is not None
    train, validation = data.train.fetch([0]), data.validation.fetch([0])
    known = networkx.karate_club_graph()
    expected = torch.from_numpy(networkx.to_numpy_array(known, weight=None))
    assert torch.equal(train["adjacency"][0].double(), expected)
    assert [data.classes[side] for side in train["target"][0]] == [known.nodes[one]["club"] for one in known]
    assert (train["counted"] + validation["counted"] == 1).all()
    assert train["target"][train["counted"].bool()].tolist() == [0, 0, 0, 1, 1, 1]


def test_only_nodes_that_count_are_in_the_loss_and_the_metrics(tmp_path: Path) -> None:
    data = load_data(Component(name="karate-club"), tmp_path)
    task = build_task(None, Component(name="karate-club"), data.info)
    batch = data.train.fetch([0])
    right = nn.functional.one_hot(batch["target"], 2) * 50.0
    wrong = torch.where(batch["counted"].bool()[..., None], right, right.flip(-1))
    loss = task.loss(lambda *_: wrong, batch)  # type: ignore[arg-type]
    assert loss.total == 0
    assert loss.weight == 6
    metrics = task.metrics()
    task.update(metrics, wrong, batch)  # type: ignore[attr-defined]
    assert metrics.compute() == {"accuracy": 1.0}


def test_molecules_have_the_group_of_their_class(tmp_path: Path) -> None:
    data = load_data(Component(name="molecules", params={"samples": 60, "validation": 0}), tmp_path)
    batch = data.train.fetch(range(60))
    for row in range(60):
        size = int(batch["nodes"][row].sum())
        atoms = batch["input"][row].argmax(dim=1)
        graph = networkx.from_numpy_array(batch["adjacency"][row].numpy())
        real = [node for node in graph if batch["nodes"][row, node]]
        assert len(real) == size
        assert networkx.is_connected(graph.subgraph(real))
        assert all(degree <= (4 if atoms[node] == CARBON else 3) for node, degree in graph.degree(real))
        oxygens = [node for node in real if atoms[node] == OXYGEN]
        around = [sorted(int(atoms[one]) for one in graph[node]) for node in real if atoms[node] == CARBON]
        found = {
            "ether": len(oxygens) == 1 and len(graph[oxygens[0]]) == 2,
            "acid": any(one.count(OXYGEN) == 2 for one in around),
            "amide": any(OXYGEN in one and NITROGEN in one and len(one) == 3 for one in around),
        }
        assert found.get(data.classes[int(batch["target"][row])], True)
        assert len(oxygens) == (2 if data.classes[int(batch["target"][row])] == "acid" else 1)
