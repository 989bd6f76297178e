from __future__ import annotations

import math
from time import sleep

import pytest

from epochal.training.intervals import Schedule, Timer
from epochal.units import Interval


def steps(every: str, steps_per_epoch: int, count: int) -> list[float]:
    schedule, found = Schedule.of(Interval.parse(every), steps_per_epoch), [0.0]
    while len(found) <= count:
        found.append(schedule.after(int(found[-1])))
    return found[1:]


@pytest.mark.parametrize(
    ("every", "steps_per_epoch", "expected"),
    [
        ("1ep", 23, [23, 46, 69]),
        ("0.5ep", 23, [12, 23, 35, 46]),
        ("0.1ep", 23, [3, 5, 7, 10, 12, 14, 17, 19, 21, 23]),
        ("2ep", 5, [10, 20]),
        ("7steps", 5, [7, 14]),
        ("0.01ep", 5, [1, 2, 3]),
        ("1.5ep", 4, [6, 12]),
    ],
)
def test_due_steps(every: str, steps_per_epoch: int, expected: list[int]) -> None:
    assert steps(every, steps_per_epoch, len(expected)) == expected
    schedule = Schedule.of(Interval.parse(every), steps_per_epoch)
    assert [step for step in range(1, expected[-1] + 1) if schedule.due(step)] == expected


def test_time_is_due_at_no_step() -> None:
    assert Schedule.of(Interval.parse("10m"), 5).after(3) == math.inf


def test_timer() -> None:
    timer = Timer(Interval.parse("10ms"))
    assert not timer.due
    sleep(0.02)
    assert timer.due
    timer.restart()
    assert not timer.due
    assert not Timer(Interval.parse("1steps")).due
