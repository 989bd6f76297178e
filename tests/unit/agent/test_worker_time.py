"""What the time of workers goes to, from when a job has its room until it gives that back."""

from __future__ import annotations

from epochal.agent.booking import Bookings
from epochal.agent.progress import ProgressLog
from epochal.ledger.capacity import Demand
from epochal.server.metric_table import USES
from epochal.training.control import Progress

PERFORMANCE = {"perf/data_seconds": 0.1, "perf/forward_backward_seconds": 0.2, "perf/optimizer_seconds": 0.1}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def seconds(bookings: Bookings, kind: str = "worker_seconds") -> dict[str, float]:
    return {use: amount for use, amount in bookings.time.told()[kind].items() if amount}


def test_a_jobs_time_is_counted_by_what_its_workers_do_from_its_place_to_its_release() -> None:
    clock = Clock()
    bookings = Bookings(clock)
    log = ProgressLog(lambda use, waits: bookings.time.does("a", use, waits))
    bookings.expect("a", 1, Demand((2, 2), 1.0, 4.0))
    log.does("setup")  # nobody waits for it yet: it has no room
    clock.now = 5
    bookings.place("a", 1, {"n1": 1, "n2": 1})
    clock.now = 8
    log.does("train")
    log.add(Progress("train", 10, 100, 0, 1.0, PERFORMANCE), clock.now)
    clock.now = 10
    log.does("train")
    clock.now = 14
    log.does("validate")
    assert seconds(bookings) == {"start": 6.0, "train": 4.0 + 6.0, "data": 2.0}, "a quarter of a step waits for data"
    clock.now = 15
    log.does("export")
    clock.now = 16
    bookings.release("a", 1)
    clock.now = 60
    assert seconds(bookings) == {"start": 6.0, "train": 10.0, "data": 2.0, "validate": 2.0, "finish": 2.0}
    assert seconds(bookings, "gpu_seconds")["start"] == 6.0 * 4


def test_what_a_job_does_is_counted_before_it_says_what_it_does_next() -> None:
    clock = Clock()
    bookings = Bookings(clock)
    bookings.expect("a", 1, Demand((1, 1), 1.0, 0.0))
    bookings.place("a", 1, {"n1": 1})
    bookings.time.does("a", "train")
    clock.now = 600
    assert seconds(bookings) == {"train": 600.0}
    assert seconds(bookings) == {"train": 600.0}, "once"


def test_a_sweep_that_is_resized_is_counted_with_as_many_workers_as_it_had() -> None:
    clock = Clock()
    bookings = Bookings(clock)
    bookings.expect("a", 1, Demand((1, 4), 1.0, 0.0))
    bookings.place("a", 1, {"n1": 4})
    bookings.time.does("a", "train")
    clock.now = 10
    bookings.place("a", 1, {"n1": 1})
    clock.now = 20
    assert seconds(bookings) == {"train": 50.0}


def test_agents_count_what_servers_tell() -> None:
    assert set(Bookings(Clock()).time.told()["worker_seconds"]) == set(USES)
