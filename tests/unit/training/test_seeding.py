from __future__ import annotations

import json
import random

import numpy as np
import torch

from epochal.training import seeding

CPU = torch.device("cpu")


def draw() -> tuple[float, ...]:
    return (random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), float(torch.rand(())))


def test_state_survives_json() -> None:
    seeding.start(7)
    draw()
    state = json.loads(json.dumps(seeding.capture(CPU)))
    expected = [draw() for _ in range(3)]
    seeding.start(8)
    seeding.restore(state, CPU)
    assert [draw() for _ in range(3)] == expected


def test_seeds_of_different_purposes_differ() -> None:
    seeds = {seeding.derive(seed, purpose, rank) for seed in (0, 1) for purpose in "ab" for rank in range(3)}
    assert len(seeds) == 12
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_deterministic_is_undone() -> None:
    with seeding.deterministic(True):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    with seeding.deterministic(False):
        assert not torch.are_deterministic_algorithms_enabled()
