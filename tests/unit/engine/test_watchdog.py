"""Hangs, judged from heartbeats alone; the clock is the test's."""

from __future__ import annotations

import pytest

from epochal.engine.events import Heartbeat
from epochal.engine.failure import FailureKind
from epochal.engine.watchdog import Watchdog, percentile99
from epochal.training.control import Phase

LIMITS: dict[Phase, float] = {"setup": 100.0, "train": 10.0, "validate": 30.0, "checkpoint": 50.0, "export": 80.0}


def watched(*ranks: int) -> Watchdog:
    dog = Watchdog(LIMITS)
    for rank in ranks:
        dog.start(rank, now=0.0)
    return dog


def beat(dog: Watchdog, rank: int, now: float, step: int, phase: Phase = "train") -> None:
    dog.heard(Heartbeat(rank, phase, step, step), now)


def test_progress_is_no_hang() -> None:
    dog = watched(0, 1)
    for second in range(1, 200):
        beat(dog, 0, second, second)
        beat(dog, 1, second, second)
        assert dog.hung(second) is None


def test_no_step_for_the_limit_is_a_hang_of_the_one_furthest_behind() -> None:
    dog = watched(0, 1)
    for second in range(1, 21):
        beat(dog, 0, second, min(second, 6))
        beat(dog, 1, second, min(second, 5))
        hung = dog.hung(second)
        if second <= 15:
            assert hung is None
    assert hung is not None
    assert (hung.rank, hung.kind) == (1, FailureKind.HANG)
    assert "after step 5" in hung.message


def test_a_stopped_process_is_blamed_rather_than_those_who_wait_for_it() -> None:
    dog = watched(0, 1, 2)
    for second in range(1, 5):
        for rank in range(3):
            beat(dog, rank, second, second)
    for second in range(5, 20):
        beat(dog, 0, second, 4)
        beat(dog, 2, second, 4)
    hung = dog.hung(19.0)
    assert hung is not None
    assert hung.rank == 1


def test_slow_steps_earn_a_longer_limit() -> None:
    dog = watched(0)
    beat(dog, 0, 1, 0)
    for step in range(1, 6):
        beat(dog, 0, 5.0 * step, step)
    for second in range(26, 80):
        beat(dog, 0, second, 5)
        assert (dog.hung(second) is None) == (second <= 25 + 50)


def test_the_first_step_may_compile() -> None:
    dog = watched(0)
    for second in range(1, 121):
        beat(dog, 0, second, 0)
        assert (dog.hung(second) is None) == (second <= 100)


@pytest.mark.parametrize("phase", ["setup", "validate", "checkpoint", "export"])
def test_others_wait_while_one_is_in_a_long_phase(phase: Phase) -> None:
    dog = watched(0, 1)
    beat(dog, 0, 1.0, 5)
    beat(dog, 1, 1.0, 5)
    for second in range(2, 110):
        dog.heard(Heartbeat(0, phase, 5, 6), second)
        dog.heard(Heartbeat(1, "train", 5, 5), second)
        assert (dog.hung(second) is None) == (second <= 2 + LIMITS[phase])


def test_a_worker_that_is_done_is_no_longer_judged() -> None:
    dog = watched(0, 1)
    beat(dog, 0, 1.0, 5)
    dog.finish(1)
    for second in range(2, 300):
        beat(dog, 0, second, second + 5)
    assert dog.hung(299.0) is None
    dog.finish(0)
    assert dog.hung(9999.0) is None


def test_percentile() -> None:
    assert percentile99([]) == 0
    assert percentile99([3.0]) == 3.0
    assert percentile99(range(1, 1001)) == 990


def test_silence_is_judged_alike_in_every_phase() -> None:
    dog = watched(0, 1)
    dog.heard(Heartbeat(0, "setup", 0, 1), 1.0)
    for second in range(1, 23):
        dog.heard(Heartbeat(1, "setup", 0, second), second)
        hung = dog.hung(second)
        assert (hung is None) == (second <= 21)
    assert hung is not None
    assert hung.rank == 0
