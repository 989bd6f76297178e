"""A job keeps its place from one attempt to the next, and the bookings say what it holds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from epochal.agent import job_place
from epochal.agent.booking import Bookings
from epochal.agent.job_place import JobPlace

SPEC = {"resources": {"workers": 2, "cpus_per_worker": 1}}


class FakePlace(SimpleNamespace):
    """Room for two workers on one node."""

    def __init__(self, node: str) -> None:
        super().__init__(is_whole=True, workers_by_node={node: 2}, closed=0)

    def close(self) -> None:
        self.closed += 1


def lease(epoch: int) -> Any:
    return SimpleNamespace(job_id="job", epoch=epoch, job=SimpleNamespace(spec=SPEC, granted=2))


@pytest.fixture
def bookings() -> Bookings:
    return Bookings(lambda: 0.0)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[FakePlace]:
    """The places that were reserved."""
    made: list[FakePlace] = []

    def reserve(*_: object) -> FakePlace:
        made.append(FakePlace(f"node{len(made)}"))
        return made[-1]

    monkeypatch.setattr(job_place, "reserve", reserve)
    return made


def attempt(place: JobPlace, epoch: int) -> Any:
    place.expect(lease(epoch))
    return place.reserve(lambda: None, 1.0, lambda: False)  # type: ignore[arg-type, return-value]


def shares(bookings: Bookings) -> list[tuple[int, Any]]:
    return [(share.epoch, share.placement) for share in bookings._shares.values()]


def test_a_whole_place_is_kept_and_one_that_lost_a_node_is_reserved_anew(
    bookings: Bookings, made: list[FakePlace]
) -> None:
    place = JobPlace(None, bookings, tuple, lease(1))  # type: ignore[arg-type]
    first = attempt(place, 1)
    assert attempt(place, 2) is first
    assert shares(bookings) == [(2, {"node0": 2})]
    first.is_whole = False
    assert attempt(place, 3) is made[1]
    assert first.closed == 1
    assert shares(bookings) == [(3, {"node1": 2})]
    place.release()
    place.release()
    assert (made[1].closed, place.held, shares(bookings)) == (1, None, [])


def test_who_gives_its_place_back_and_goes_on_is_booked_without_workers(
    bookings: Bookings, made: list[FakePlace]
) -> None:
    place = JobPlace(None, bookings, tuple, lease(1))  # type: ignore[arg-type]
    attempt(place, 1)
    place.vacate()
    assert (made[0].closed, place.held, shares(bookings)) == (1, None, [(1, {})])
    place.book()
    assert shares(bookings) == [(1, {})], "a place that is not held is not booked"
