"""``pyg/<name>``: graph networks of PyTorch Geometric, on padded graphs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from epochal.catalog.architectures.gnn import INPUTS
from epochal.catalog.data import DataInfo
from epochal.errors import EpochalError, NotFoundError


class OfPaddedGraphs(nn.Module):
    """A model of node features and edges, called with a batch of dense adjacency matrices."""

    def __init__(self, model: nn.Module, per_node: bool) -> None:
        super().__init__()
        self.model = model
        self.per_node = per_node

    def forward(self, x: Tensor, adjacency: Tensor, nodes: Tensor) -> Tensor:
        """As ``architectures.gnn.Gnn``: (batch, nodes, outputs), or the mean over the nodes (batch, outputs)."""
        there = nodes.bool()
        graph, target, source = (adjacency.bool() & there[:, :, None] & there[:, None]).nonzero().T
        # Without the padding, and with the graph of each node: a norm (params.norm) is of those, or of a graph's own.
        place = (there.flatten().cumsum(0) - 1).view_as(there)
        edges = torch.stack([place[graph, source], place[graph, target]])
        found: Tensor = self.model(x[there], edges, batch=there.nonzero()[:, 0], batch_size=len(x))
        outputs = found.new_zeros(*x.shape[:2], found.shape[1])
        outputs[there] = found
        if self.per_node:
            return outputs
        shares = there[..., None].to(outputs.dtype)
        return (outputs * shares).sum(dim=1) / shares.sum(dim=1).clamp_min(1)


def build(name: str, params: dict[str, Any], info: DataInfo) -> nn.Module:
    """
    Raises:
        NotFoundError: PyTorch Geometric has no layer stack of that name.
        EpochalError: the data has no graphs.
    """
    from torch_geometric.nn.models.basic_gnn import BasicGNN

    known = {one.__name__: one for one in BasicGNN.__subclasses__()}
    if name not in known:
        raise NotFoundError("layer stack of PyTorch Geometric", name, tuple(known))
    if info.inputs != INPUTS or len(info.input.shape) != 2 or info.target.shape not in ((), info.input.shape[:1]):
        told = f"pyg/{name} takes graphs, for a class or value of each graph or node: see the dataset molecules"
        raise EpochalError(told, "give input, adjacency and nodes")
    sizes = {"hidden_channels": 64, "num_layers": 2, **params}
    model = known[name](in_channels=info.input.shape[1], out_channels=info.target.classes or 1, **sizes)
    return OfPaddedGraphs(model, per_node=info.target.shape != ())
