"""Batches from processes of their own."""

from __future__ import annotations

import psutil
import torch

import training_pieces as pieces
from epochal.training.loader import Loader, start_early
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
