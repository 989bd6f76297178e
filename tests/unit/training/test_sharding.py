from __future__ import annotations

from torch import nn

from epochal.training.sharding import blocks


def test_repeated_parts_are_blocks() -> None:
    model = nn.Sequential(nn.Embedding(10, 4), nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)]), nn.Linear(4, 2))
    assert blocks(model, least=20) == [model[0], model[1][0], model[1][1]]
    assert blocks(model, least=41) == []


def test_what_is_left_of_an_outer_block_counts_for_itself() -> None:
    inner = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model = nn.Sequential(inner, nn.Linear(1, 1))
    assert blocks(model, least=20) == [inner[0], inner[1]]
    assert blocks(model, least=40) == [inner]


def test_lists_of_lists_are_no_blocks_themselves() -> None:
    model = nn.ModuleList([nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)]), nn.ModuleDict({"one": nn.Linear(6, 6)})])
    assert blocks(model, least=20) == [model[0][0], model[0][1]]
    assert blocks(model, least=30) == []


def test_a_single_part_is_no_block() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(40, 40)

    assert blocks(Model(), least=1) == []


def test_shared_parameters_stay_with_the_model() -> None:
    first, second, third = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    assert blocks(nn.Sequential(first, second, third), least=10) == [third]


def test_layers_that_normalise_stay_with_the_model() -> None:
    """They are of another dtype than a block in 16 bits; those of images have a weight for each of their values."""
    convolution, norm = nn.Conv2d(3, 8, 3, padding=1), nn.LayerNorm([8, 16, 16])
    assert blocks(nn.Sequential(convolution, norm), least=100) == [convolution]
