"""Made-up graphs in the manner of molecules, of carbon, nitrogen and oxygen, with one functional group each."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Annotated

import torch
from pydantic import Field as Bounds

from epochal.catalog.architectures.gnn import INPUTS, graph_fields
from epochal.catalog.data import DataInfo, Field, LoadedData
from epochal.catalog.datasets.in_memory import PartitionParams, digest_of, parts
from epochal.catalog.entry import Dataset

CARBON, NITROGEN, OXYGEN = range(3)
GROUPS: dict[str, tuple[tuple[int, int], ...]] = {
    "alcohol": ((OXYGEN, -1),),
    "ether": ((OXYGEN, -1), (CARBON, 0)),
    "acid": ((CARBON, -1), (OXYGEN, 0), (OXYGEN, 0)),
    "amide": ((CARBON, -1), (OXYGEN, 0), (NITROGEN, 0)),
}
"""The atoms of each group, and what each is bound to: an atom of the group, or (-1) one of the skeleton."""


class MoleculesParams(PartitionParams):
    samples: Annotated[int, Bounds(ge=8)] = 1000
    """How many graphs, both parts together."""
    skeleton: Annotated[int, Bounds(ge=4, le=100)] = 10
    """Carbon atoms that the group is bound to, at most; there are half as many at least."""


def build(params: MoleculesParams, folder: Path) -> LoadedData:
    """input: (nodes, 3), 1 for the atom's element; target: which group; adjacency: (nodes, nodes), the bonds, without
    hydrogen; nodes: (nodes,), 1 for an atom and 0 for padding.
    """
    random, names = Random(params.seed), tuple(GROUPS)
    # The largest skeleton, the largest group, and a nitrogen that tells nothing.
    size = params.skeleton + max(map(len, GROUPS.values())) + 1
    elements = torch.zeros(params.samples, size, len((CARBON, NITROGEN, OXYGEN)))
    adjacency = torch.zeros(params.samples, size, size, dtype=torch.uint8)
    nodes = torch.zeros(params.samples, size, dtype=torch.uint8)
    target = torch.tensor([random.randrange(len(names)) for _ in range(params.samples)])
    for row, group in enumerate(target.tolist()):
        atoms, bonds = _molecule(random, params.skeleton, GROUPS[names[group]])
        order = random.sample(range(len(atoms)), len(atoms))  # so that a place tells nothing
        for place, element in zip(order, atoms, strict=True):
            elements[row, place, element] = 1
            nodes[row, place] = 1
        for one, other in bonds:
            adjacency[row, order[one], order[other]] = adjacency[row, order[other], order[one]] = 1
    whole = {"input": elements, "target": target, "adjacency": adjacency, "nodes": nodes}
    train, validation, test = parts(whole, params, target)
    return LoadedData(
        train,
        validation,
        DataInfo(Field((size, 3)), Field((), torch.int64, len(names)), graph_fields(size), INPUTS),
        digest_of(whole),
        source="molecules",
        classes=names,
        test=test,
    )


def _molecule(random: Random, most: int, group: tuple[tuple[int, int], ...]) -> tuple[list[int], list[tuple[int, int]]]:
    """The element of each atom, and which of them are bound: a tree of carbon, now and then with a ring, the group
    somewhere, and a nitrogen elsewhere.
    """
    carbons = random.randint((most + 1) // 2, most)
    bonds, left = list[tuple[int, int]](), [4] * carbons  # of each, the bonds that it can still have

    def bind(one: int, other: int) -> None:
        bonds.append((one, other))
        left[one] -= 1
        left[other] -= 1

    for atom in range(1, carbons):
        bind(atom, random.choice([one for one in range(atom) if left[one] > 1]))
    first, last = random.sample(range(carbons), 2)
    if (first, last) not in bonds and (last, first) not in bonds and min(left[first], left[last]) > 1:
        bind(first, last)
    atoms = [CARBON] * carbons
    root, other = random.sample([one for one in range(carbons) if left[one]], 2)
    for element, bound in group:
        atoms.append(element)
        left.append(4)
        bind(len(atoms) - 1, root if bound < 0 else carbons + bound)
    atoms.append(NITROGEN)
    left.append(3)
    bind(len(atoms) - 1, other)
    return atoms, bonds


ENTRY = Dataset(
    summary="Made-up graphs in the manner of molecules: an alcohol, an ether, an acid or an amide",
    source="Epochal's own",
    params=MoleculesParams,
    build=build,
    task="classification",
)
