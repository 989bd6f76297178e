"""Batches from processes of their own."""

from __future__ import annotations

import os
import sys

import psutil
import pytest
import torch

import training_pieces as pieces
from epochal.catalog.data import Split
from epochal.errors import CodeError
from epochal.training.loader import Loader, _Reader, _request, start_early
from epochal.training.sampler import Sampler


def test_loader_processes_draw_nothing_from_the_training() -> None:
    shares = Sampler(8, 4, 0).shares(0, 1, 0, 2)
    before = torch.get_rng_state()
    batches = Loader(pieces.samples(8), torch.device("cpu"), workers=1).train(shares, 0)
    assert next(batches).size == 4
    assert torch.equal(torch.get_rng_state(), before)
    batches.close()


def test_the_process_that_loader_processes_come_from_can_be_started_before_they_are_needed() -> None:
    def servers() -> set[psutil.Process]:
        commands = {child: child.as_dict(["cmdline"])["cmdline"] or [] for child in psutil.Process().children()}
        return {child for child, command in commands.items() if "multiprocessing.forkserver" in " ".join(command)}

    start_early()
    early = servers()
    assert len(early) == 1
    batches = Loader(pieces.samples(8), torch.device("cpu"), workers=1).train(Sampler(8, 4, 0).shares(0, 1, 0, 2), 0)
    assert next(batches).size == 4
    batches.close()
    assert servers() == early


class Ending(Split):
    """A dataset that ends the process which reads from it."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __len__(self) -> int:
        return 8

    def fetch(self, indices: list[int]) -> dict[str, torch.Tensor]:
        if self.how == "sys.exit":
            sys.exit(5)
        if self.how == "os._exit":
            os._exit(5)
        return {}


@pytest.mark.parametrize("how", ["sys.exit", "os._exit"])
def test_a_dataset_that_ends_its_process_is_an_error_that_names_the_line(how: str) -> None:
    reader = _Reader(Ending(how))  # as in a loader process, which torch takes 5 s to end after an exception
    with pytest.raises(CodeError, match=rf"your code ended the interpreter.*line \d+: {how}\(5\)"):
        reader[_request([0], 1)]
