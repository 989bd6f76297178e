"""The 34 members of a karate club, who of them met outside it, and on which side each was when it split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field as Bounds

from epochal.catalog.architectures.gnn import INPUTS, graph_fields
from epochal.catalog.data import DataInfo, Field, LoadedData, TensorSplit
from epochal.catalog.datasets.in_memory import PartitionParams, digest_of, three_parts
from epochal.catalog.entry import Dataset

SIDES = "0000000001000011001010111111111111"
"""Of each member: that of the instructor, Mr. Hi (0), or that of the officers."""
MET = {
    0: (1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 17, 19, 21, 31), 1: (2, 3, 7, 13, 17, 19, 21, 30),
    2: (3, 7, 8, 9, 13, 27, 28, 32), 3: (7, 12, 13), 4: (6, 10), 5: (6, 10, 16), 6: (16,), 8: (30, 32, 33), 9: (33,),
    13: (33,), 14: (32, 33), 15: (32, 33), 18: (32, 33), 19: (33,), 20: (32, 33), 22: (32, 33),
    23: (25, 27, 29, 32, 33), 24: (25, 27, 31), 25: (31,), 26: (29, 33), 27: (33,), 28: (31, 33), 29: (32, 33),
    30: (32, 33), 31: (32, 33), 32: (33,),
}  # fmt: skip
"""Whom each met, of those after it."""


class KarateClubParams(PartitionParams):
    validation: Annotated[float, Bounds(ge=0, lt=1)] = 0.8
    """Share of the members whose side is held out for validation; the graph is the same in training."""


def build(params: KarateClubParams, folder: Path) -> LoadedData:
    """One sample a part. input: (34, 34), a feature for each member; target: (34,), the sides; adjacency: (34, 34);
    nodes: (34,), all 1; counted: (34,), 1 for the members whose side counts in that part.
    """
    size = len(SIDES)
    target = torch.tensor([int(side) for side in SIDES])
    adjacency = torch.zeros(size, size, dtype=torch.uint8)
    for one, others in MET.items():
        adjacency[one, list(others)] = 1
    adjacency |= adjacency.T.clone()
    graph = {"input": torch.eye(size), "target": target, "adjacency": adjacency, "nodes": torch.ones(size).byte()}
    splits = []
    for members in three_parts(size, params, target):
        counted = torch.zeros(size, dtype=torch.uint8)
        counted[members] = 1
        splits.append(TensorSplit({name: tensor[None] for name, tensor in {**graph, "counted": counted}.items()}))
    train, validation, test = splits
    more = {**graph_fields(size), "counted": Field((size,), torch.uint8, classes=2)}
    return LoadedData(
        train,
        validation if validation.tensors["counted"].any() else None,
        DataInfo(Field((size, size)), Field((size,), torch.int64, classes=2), more, INPUTS),
        digest_of(graph),
        source="Zachary's karate club",
        classes=("Mr. Hi", "Officer"),
        test=test if test.tensors["counted"].any() else None,
    )


ENTRY = Dataset(
    summary="A graph of the 34 members of a karate club, and the side of each when it split",
    source="Zachary 1977, An information flow model for conflict and fission in small groups",
    params=KarateClubParams,
    build=build,
    task="node-classification",
)
