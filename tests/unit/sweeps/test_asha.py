"""Asynchronous successive halving promotes as Algorithm 2 of its paper does."""

from __future__ import annotations

import math
from random import Random

import pytest

from epochal.sweeps.trial_schedulers.asha import AshaParams, geometric_rungs, promotes_something
from epochal.sweeps.trials import Asked, Reached, Run
from sweep_pieces import controller_of, sweep_spec

TRIALS, ETA, LENGTHS = 10, 2, (1.0, 2.0, 4.0, 8.0)


class Algorithm2:
    """``get_job`` of Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, line by line.

    Which of several promotable trials is returned is free there; it is the one whose state the worker holds, or the
    best. The lower loss is better, a NaN is the worst.
    """

    def __init__(self) -> None:
        self.rungs: list[dict[int, float]] = [{} for _ in LENGTHS]
        self.promoted: list[set[int]] = [set() for _ in LENGTHS]
        self.begun = 0

    def get_job(self, holds: int | None) -> tuple[int, int] | None:
        for k in range(len(LENGTHS) - 2, -1, -1):
            candidates = self.top_k(k, len(self.rungs[k]) // ETA)
            promotable = [trial for trial in candidates if trial not in self.promoted[k]]
            if promotable:
                trial = holds if holds in promotable else promotable[0]
                self.promoted[k].add(trial)
                return trial, k + 1
        if self.begun == TRIALS:
            return None
        self.begun += 1
        return self.begun - 1, 0

    def top_k(self, rung: int, count: int) -> list[int]:
        losses = self.rungs[rung]
        order = sorted(losses, key=lambda trial: (math.isnan(losses[trial]), losses[trial], trial))
        return [trial for trial in order[:count] if not math.isnan(losses[trial])]


@pytest.mark.parametrize("block", [0, 1, 2, *(pytest.param(block, marks=pytest.mark.slow) for block in range(3, 10))])
def test_rung_decisions_are_those_of_algorithm_2_in_every_order_of_arrival(block: int) -> None:
    scheduler = {"name": "asha", "eta": ETA, "min": "1ep"}
    spec = sweep_spec(full=8, mode="min", trials=TRIALS, scheduler=scheduler)
    for seed in range(100 * block, 100 * block + 100):
        draw = Random(seed)
        controller, reference = controller_of(spec), Algorithm2()
        slots, running = draw.randint(1, 8), []
        holds: int | None = None
        while not controller.is_finished:
            if len(running) < slots and (job := reference.get_job(holds)) is not None:
                trial, rung = job
                assert controller.step(Asked(holds)) == [Run(trial, controller.trials[trial].point, LENGTHS[rung])], (
                    seed
                )
                running.append(job)
                holds = None
                continue
            trial, rung = running.pop(draw.randrange(len(running)))
            loss = draw.choice([math.nan, *(draw.randint(0, 9) / 10 for _ in range(9))])
            reference.rungs[rung][trial] = loss
            controller.step(Reached(trial, LENGTHS[rung], loss))
            holds = draw.choice([trial, None])
        assert reference.get_job(None) is None
        assert not running


@pytest.mark.parametrize(
    ("first", "eta", "full", "lengths"),
    [
        (1, 3, 81, (1, 3, 9, 27, 81)),
        (1, 3, 10, (1, 3, 10)),
        (1, 3, 26, (1, 3, 9, 26)),
        (1, 4, 2, (1, 2)),
        (0.5, 2, 4, (0.5, 1, 2, 4)),
        (8, 3, 9, (8, 9)),
    ],
    ids=range(6),
)
def test_rungs_grow_by_eta_up_to_the_full_length(
    first: float, eta: int, full: float, lengths: tuple[float, ...]
) -> None:
    assert geometric_rungs(first, eta, full) == lengths


def test_fewer_trials_than_eta_are_refused() -> None:
    (problem,) = promotes_something(AshaParams(eta=4), sweep_spec(trials=3))
    assert str(problem) == "sweep.trials: expected at least eta (4), or no trial is ever promoted, got 3"
    assert not list(promotes_something(AshaParams(eta=3), sweep_spec(trials=3)))
