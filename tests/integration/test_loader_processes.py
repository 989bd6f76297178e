"""Batches from processes of their own."""

from __future__ import annotations

import torch

import training_pieces as pieces
from epochal.training.loader import Loader
from epochal.training.sampler import Sampler


def test_loader_processes_draw_nothing_from_the_training() -> None:
    shares = Sampler(8, 4, 0).shares(0, 1, 0, 2)
    before = torch.get_rng_state()
    batches = Loader(pieces.samples(8), torch.device("cpu"), workers=1).train(shares, 0)
    assert next(batches).size == 4
    assert torch.equal(torch.get_rng_state(), before)
    batches.close()
