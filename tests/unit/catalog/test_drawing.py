"""Pictures: what is drawn is at its place and has its colour."""

from __future__ import annotations

import pytest
import torch

from epochal.catalog import drawing
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.task import Draws, Samples
from epochal.catalog.tasks import TASKS


def test_tiles_are_enlarged_and_in_their_places() -> None:
    black, red = torch.zeros(1, 4, 4), torch.stack([torch.ones(4, 4), torch.zeros(4, 4), torch.zeros(4, 4)])
    sheet = drawing.tiles([[black, red], [red]], "a line of it")
    assert sheet.size == (132, 154)
    assert [sheet.getpixel(at) for at in ((10, 32), (80, 32), (10, 102), (80, 102))] == [
        (0, 0, 0),
        (255, 0, 0),
        (255, 0, 0),
        (255, 255, 255),
    ]


def test_a_box_is_framed_where_it_is_and_no_farther_than_the_image() -> None:
    grey = torch.full((1, 6, 6), 0.5)
    shown = drawing.framed(
        grey, torch.tensor([[1.0, 2.0, 4.0, 5.0], [-3.0, 5.0, 9.0, 9.0], [5.0, 1.0, 2.0, 3.0]]), torch.tensor([0, 1, 2])
    )
    blue, orange = (tuple(colour) for colour in drawing.PALETTE[1:3])
    found = {(x, y): tuple((shown[:, y, x] * 255).round().int().tolist()) for x in range(6) for y in range(6)}
    assert {at for at, colour in found.items() if colour == blue} == {
        (x, y) for x in (1, 2, 3) for y in (2, 3, 4) if (x, y) != (2, 3)
    }
    assert {at for at, colour in found.items() if colour == orange} == {(x, 5) for x in range(6)}
    assert torch.equal(grey, torch.full((1, 6, 6), 0.5))


def test_each_class_has_its_colour() -> None:
    shown = drawing.coloured(torch.tensor([[0, 1], [2, 11]]))
    found = [tuple((shown[:, y, x] * 255).round().int().tolist()) for y in (0, 1) for x in (0, 1)]
    assert found == [drawing.PALETTE[0], drawing.PALETTE[1], drawing.PALETTE[2], drawing.PALETTE[1]]


def test_what_is_right_and_what_is_wrong_differ_in_colour() -> None:
    right = drawing.confusion(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 1]), ["no", "yes"])
    wrong = drawing.confusion(torch.tensor([0, 1, 1]), torch.tensor([1, 0, 0]), ["no", "yes"])
    cell = (right.width - 4, right.height - 4)
    assert right.getpixel(cell) == drawing.PALETTE[1]
    assert wrong.getpixel(cell) == (255, 255, 255)
    assert wrong.getpixel((cell[0] - 28, cell[1])) == drawing.PALETTE[6]


def test_of_many_classes_the_last_are_one() -> None:
    many = torch.arange(1000)
    assert drawing.confusion(many, many, [str(number) for number in range(1000)]).width < 1300


@pytest.mark.parametrize("values", [torch.arange(5.0), torch.ones(5)], ids=["several", "one"])
def test_right_predictions_are_on_the_line(values: torch.Tensor) -> None:
    sheet = drawing.scatter(values, values)
    there = [(x, y) for x in range(40, 250) for y in range(10, 225) if sheet.getpixel((x, y)) == drawing.PALETTE[1]]
    assert there
    assert all(abs((x - 34) - (228 - y)) <= 4 for x, y in there)


def test_points_are_drawn_along_the_directions_in_which_they_differ_most() -> None:
    apart = torch.tensor([[-5.0, 0, 0, 0], [-5, 1, 0, 0], [5, 0, 0, 0], [5, 1, 0, 0]]) @ torch.eye(4)[[2, 0, 3, 1]]
    sheet = drawing.embedding(apart, torch.tensor([0, 0, 1, 1]), "two groups")
    places: dict[tuple[int, ...], list[tuple[int, int]]] = {drawing.PALETTE[1]: [], drawing.PALETTE[2]: []}
    for x in range(sheet.width):
        for y in range(30, sheet.height):
            if (colour := sheet.getpixel((x, y))) in places:
                places[colour].append((x, y))
    left, right = sorted([x for x, _ in found] for found in places.values())
    assert max(left) < 20
    assert min(right) > 420
    heights = [y for found in places.values() for _, y in found]
    assert max(heights) - min(heights) < 60, "one scale for both directions"


@pytest.mark.parametrize("shape", [(1, 3), (4, 1), (2, 5)], ids=["one sample", "one number", "two samples"])
def test_few_points_and_few_numbers_are_drawn_too(shape: tuple[int, int]) -> None:
    sheet = drawing.embedding(torch.randn(shape), torch.zeros(shape[0], dtype=torch.long), "few")
    assert drawing.PALETTE[1] in {colour for _, colour in sheet.getcolors(100_000) or ()}


def test_a_curve_and_its_prediction_are_both_drawn() -> None:
    sheet = drawing.curves(torch.zeros(2, 3), torch.ones(2, 3))
    colours = {colour for _, colour in sheet.getcolors(100_000) or ()}
    assert {drawing.PALETTE[1], drawing.PALETTE[6]} <= colours


def test_text_is_what_the_tokens_are() -> None:
    class Next(torch.nn.Module):
        """Sure that the token after the last one follows."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.shape[1] <= 4
            return self.weight * 100 * torch.nn.functional.one_hot((x + 1) % 3, 3).float()

    task = TASKS.get("language-modelling")
    field = Field((4,), torch.int64, classes=3)
    built = task.build(task.params(), DataInfo(field, field))
    assert isinstance(built, Draws)
    batch = {"input": torch.tensor([[0, 1, 2, 0], [2, 2, 2, 2]])}
    for names, expected in (
        (("a", "b", "c"), "abca" + "bca" * 21 + "b"),
        (("0x61", "0x62", "0x63"), "abca" + "bca" * 21 + "b"),
    ):
        first, second = str(built.pictures(Samples(batch, None, names, Next()))["text"]).split("\n\n")
        assert first == expected
        assert second == "cccc" + "abc" * 21 + "a"
    assert built.pictures(Samples(batch, None, ("a", "b", "c"))) == {}
