"""Graph neural networks over dense adjacency matrices: graph convolutions, GraphSAGE and graph attention.

Graphs of a batch are padded to the same number of nodes. A class for each node comes straight from the last layer, as
in the papers; one for each graph from the mean over its nodes. The parameters are those of PyTorch Geometric's layers.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field as Bounds
from torch import Tensor, nn
from torch.nn import functional as F

from epochal.catalog.architectures.activation import Activation, activation
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.entry import Architecture, Params
from epochal.errors import EpochalError


class GnnParams(Params):
    layer: Literal["gcn", "sage", "gat"] = "gcn"
    """Graph convolution (Kipf and Welling 2017), the mean over the neighbours beside the node (Hamilton et al. 2017),
    or attention over the neighbours (Velickovic et al. 2018)."""
    hidden: Annotated[int, Bounds(ge=1)] = 16
    """Width of the layers between; of `gat` that of each head."""
    layers: Annotated[int, Bounds(ge=1, le=100)] = 2
    """How many edges away a node still counts."""
    heads: Annotated[int, Bounds(ge=1)] = 8
    """Of `gat`'s layers between; where a class a node comes from the last layer, that has one."""
    activation: Activation = "relu"
    """The nonlinearity between layers; the paper's for `gat` is elu."""
    dropout: Annotated[float, Bounds(ge=0, lt=1)] = 0.0
    """Share of each layer's inputs that training sets to zero; the papers' is 0.5 or more."""


class GraphConvolution(nn.Module):
    """The mean over a node and its neighbours, weighted by their degrees: D^-1/2 (A + I) D^-1/2 X W."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """x: (batch, nodes, inputs), adjacency: (batch, nodes, nodes) of 0 and 1; returns (batch, nodes, outputs)."""
        # With a loop at each node: the renormalization trick of section 2.2, without which repeated layers explode.
        looped = _with_loops(adjacency)
        scale = looped.sum(dim=-1, keepdim=True).rsqrt()
        weights = scale * looped * scale.transpose(1, 2)
        result: Tensor = weights @ F.linear(x, self.linear.weight) + self.linear.bias
        return result


class Sage(nn.Module):
    """The node and the mean over its neighbours, each with weights of its own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.neighbours = nn.Linear(inputs, outputs)
        self.own = nn.Linear(inputs, outputs, bias=False)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """As ``GraphConvolution``."""
        degree = adjacency.sum(dim=-1, keepdim=True).clamp_min(1)
        result: Tensor = self.neighbours(adjacency @ x / degree) + self.own(x)
        return result


class GraphAttention(nn.Module):
    """A mean over a node and its neighbours, in which what both are decides their weights.

    The ``heads`` are put side by side.
    """

    def __init__(self, inputs: int, outputs: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear = nn.Linear(inputs, heads * outputs, bias=False)
        self.source = nn.Parameter(torch.empty(heads, outputs))
        self.target = nn.Parameter(torch.empty(heads, outputs))
        self.bias = nn.Parameter(torch.zeros(heads * outputs))
        for weight in (self.linear.weight, self.source, self.target):
            nn.init.xavier_uniform_(weight)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """As ``GraphConvolution``, with heads * outputs."""
        values = self.linear(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (batch, heads, nodes, outputs)
        sent = (values * self.source[:, None]).sum(dim=-1)
        received = (values * self.target[:, None]).sum(dim=-1)
        # Section 2.1. The score of a pair is a sum of two: no tensor of all pairs' features is made.
        scores = F.leaky_relu(received[..., :, None] + sent[..., None, :], 0.2)
        unseen = _with_loops(adjacency)[:, None] == 0
        weights = scores.masked_fill(unseen, torch.finfo(scores.dtype).min).softmax(dim=-1)
        result: Tensor = (weights @ values).transpose(1, 2).flatten(2) + self.bias
        return result


def _with_loops(adjacency: Tensor) -> Tensor:
    """With an edge from every node to itself, which is there once where the graph has it."""
    return torch.maximum(adjacency, torch.eye(adjacency.shape[-1], dtype=adjacency.dtype, device=adjacency.device))


class Gnn(nn.Module):
    def __init__(self, params: GnnParams, features: int, outputs: int, per_node: bool) -> None:
        super().__init__()
        self.per_node = per_node
        self.layers = nn.ModuleList()
        width = features
        for place in range(params.layers):
            last = per_node and place == params.layers - 1
            size, heads = (outputs, 1) if last else (params.hidden, params.heads)
            self.layers.append(_layer(params.layer, width, size, heads))
            width = size * (heads if params.layer == "gat" else 1)
        self.activation = activation(params.activation)
        self.dropout = nn.Dropout(params.dropout)
        self.head = nn.Identity() if per_node else nn.Linear(width, outputs)

    def forward(self, x: Tensor, adjacency: Tensor, nodes: Tensor) -> Tensor:
        """x: (batch, nodes, features); ``adjacency``: (batch, nodes, nodes), 1 where there is an edge, to the node of
        the row from that of the column; ``nodes``: (batch, nodes), 1 for a node and 0 for padding.

        Returns (batch, nodes, outputs) or (batch, outputs).
        """
        there = nodes.to(x.dtype)[..., None]
        edges = adjacency.to(x.dtype) * there * there.transpose(1, 2)
        for place, layer in enumerate(self.layers):
            x = layer(self.dropout(x), edges)
            if not self.per_node or place < len(self.layers) - 1:
                x = self.activation(x)
        if not self.per_node:
            x = (x * there).sum(dim=1) / there.sum(dim=1).clamp_min(1)
        outputs: Tensor = self.head(x)
        return outputs


def _layer(kind: str, inputs: int, outputs: int, heads: int) -> nn.Module:
    if kind == "gat":
        return GraphAttention(inputs, outputs, heads)
    return GraphConvolution(inputs, outputs) if kind == "gcn" else Sage(inputs, outputs)


def build(params: GnnParams, info: DataInfo) -> Gnn:
    """
    Raises:
        EpochalError: the data has no graphs, or another target than a class, or a value, for each node or graph.
    """
    if info.inputs != INPUTS or len(info.input.shape) != 2:
        told = f"gnn is called with input, adjacency and nodes, and this dataset's model with {', '.join(info.inputs)}"
        raise EpochalError(told, "use the dataset karate-club or molecules, or one of your own with these fields")
    count, features = info.input.shape
    per_node = info.target.shape == (count,)
    if info.target.shape not in ((), (count,)):
        raise EpochalError(f"gnn gives a class or value for each graph or node, and the target is {info.target.shape}")
    return Gnn(params, features, info.target.classes or 1, per_node)


def graph_fields(nodes: int) -> dict[str, Field]:
    """Those that the model is called with beside the nodes' features."""
    return {
        "adjacency": Field((nodes, nodes), torch.uint8, classes=2),
        "nodes": Field((nodes,), torch.uint8, classes=2),
    }


INPUTS = ("input", "adjacency", "nodes")

ENTRY = Architecture(
    summary="Graph neural network: graph convolutions, GraphSAGE or graph attention, for nodes or whole graphs",
    source="Kipf and Welling 2017, https://arxiv.org/abs/1609.02907; Hamilton et al. 2017, "
    "https://arxiv.org/abs/1706.02216; Velickovic et al. 2018, https://arxiv.org/abs/1710.10903",
    params=GnnParams,
    build=build,
    example=DataInfo(Field((6, 4)), Field((), torch.int64, classes=3), graph_fields(6), INPUTS),
)
