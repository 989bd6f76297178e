"""Hangs, judged from heartbeats alone; the clock is the test's."""

from __future__ import annotations

import pytest

from epochal.engine.events import Heartbeat
from epochal.engine.failure import FailureKind
from epochal.engine.watchdog import DEFAULT_LIMITS, Watchdog, limits_for, percentile99
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


def test_setting_up_and_waiting_for_the_next_trial_earn_none() -> None:
    dog = watched(0)
    for begun in (0.0, 100.0):
        dog.heard(Heartbeat(0, "setup", 0, int(begun), stepped=False), now=begun + 8.0)
        for second in range(3):
            dog.heard(Heartbeat(0, "train", second, int(begun) + 1 + second, stepped=second > 0), begun + 10.0 + second)
    assert dog.hung(121.0) is None
    hung = dog.hung(123.0)
    assert hung is not None
    assert "where 10 s are allowed" in hung.message


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
        dog.heard(Heartbeat(0, "train", 0, 0, stepped=False), second)
        assert (dog.hung(second) is None) == (second <= 100)


@pytest.mark.parametrize("phase", ["setup", "validate", "checkpoint", "export"])
def test_a_long_phase_has_a_limit_of_its_own(phase: Phase) -> None:
    dog = watched(0, 1)
    for rank in range(2):
        beat(dog, rank, 1.0, 5)
    for second in range(2, 110):
        for rank in range(2):
            dog.heard(Heartbeat(rank, phase, 5, 6), second)
        assert (dog.hung(second) is None) == (second <= 2 + LIMITS[phase])


def test_those_who_wait_in_a_phase_with_a_longer_limit_do_not_hide_the_one_that_is_stuck() -> None:
    dog = watched(0, 1)
    for rank in range(2):
        beat(dog, rank, 1.0, 5)
    for second in range(2, 20):
        dog.heard(Heartbeat(0, "checkpoint", 6, 7), second)
        dog.heard(Heartbeat(1, "train", 5, 5), second)
        assert (dog.hung(second) is None) == (second <= 11)
    hung = dog.hung(20.0)
    assert hung is not None
    assert hung.rank == 1


@pytest.mark.parametrize(
    ("phases", "grace", "last_progress", "late"),
    [
        (("train", "train"), 5.0, 9.0, 1),  # stuck in its forward pass, and the other waits for it
        (("setup", "setup"), 5.0, 9.0, 1),
        (("checkpoint", "train"), 5.0, 9.0, 1),
        (("checkpoint", "checkpoint"), 5.0, 9.0, None),  # saving, and it gets on
        (("checkpoint", "checkpoint"), 5.0, 4.0, 1),  # where the disk hangs
        (("checkpoint", "checkpoint"), 0.0, 10.0, 1),
    ],
)
def test_who_was_asked_to_end_is_late_unless_all_save_and_get_on_with_it(
    phases: tuple[Phase, Phase], grace: float, last_progress: float, late: int | None
) -> None:
    dog = watched(0, 1)
    dog.heard(Heartbeat(0, phases[0], 6, 13), last_progress)
    dog.heard(Heartbeat(1, phases[1], 6, 12), last_progress)
    found = dog.late(10.0, grace)
    assert (found.rank if found else None) == late
    if found:
        assert found.kind is FailureKind.HANG
        assert found.message == f"killed {grace:g} s after it was asked to end, in phase {phases[1]!r} after step 6"


def test_nobody_is_late_once_all_are_done() -> None:
    dog = watched(0)
    dog.finish(0)
    assert dog.late(10.0, 0.0) is None


def test_a_disk_that_hangs_is_a_hang_of_the_worker_whose_disk_it_is() -> None:
    """All wait for their saver: rank 2's for its disk, the others' for rank 2."""
    dog = watched(0, 1, 2)
    for second in range(1, 60):
        for rank in range(3):
            dog.heard(Heartbeat(rank, "checkpoint", 5, 10, stages=1 if rank == 2 else 2), second)
        assert (dog.hung(second) is None) == (second <= 1 + LIMITS["checkpoint"])
    hung = dog.hung(60.0)
    assert hung is not None
    assert (hung.rank, hung.kind) == (2, FailureKind.HANG)
    assert "in phase 'checkpoint' after step 5" in hung.message


def test_a_disk_that_is_slow_is_none() -> None:
    dog = watched(0)
    for second in range(1, 1000, 20):
        dog.heard(Heartbeat(0, "checkpoint", 5, 10, growth=second), second)
        assert dog.hung(second) is None


def test_a_resumed_training_may_compile_too() -> None:
    dog = watched(0)
    for second in range(1, 121):
        dog.heard(Heartbeat(0, "train", 500, 2, stepped=False), second)
        assert (dog.hung(second) is None) == (second <= 101)


def test_a_spec_may_allow_more() -> None:
    assert limits_for(None) == DEFAULT_LIMITS
    more = limits_for(600.0)
    assert (more["train"], more["validate"], more["setup"]) == (600.0, 600.0, DEFAULT_LIMITS["setup"])
    assert limits_for(20.0) == {**DEFAULT_LIMITS, "train": 20.0}
    dog = Watchdog(more)
    dog.start(0, now=0.0)
    beat(dog, 0, 1.0, 5)
    assert dog.hung(599.0) is None
    hung = dog.hung(602.0)
    assert hung is not None
    assert "600 s are allowed; if it is only slow there, set limits.no_progress" in hung.message


def test_silent_workers() -> None:
    dog = watched(0, 1)
    beat(dog, 0, 5.0, 1)
    assert dog.silent(8.0, 5.0) == [1]
    assert dog.silent(20.0, 5.0) == [0, 1]


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
