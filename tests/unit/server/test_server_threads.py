"""Threads for one kind of work, and what is known of renewals that they could not serve in time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from epochal.errors import UnreachableError
from epochal.server.renewals import Renewals
from epochal.server.threads import Threads


def test_what_hangs_is_given_up_and_keeps_its_thread_until_it_ends() -> None:
    goes_on = threading.Event()

    async def scenario() -> int:
        threads = Threads("the storage", 2, 0.1)
        hanging = [threads.run(goes_on.wait) for _ in range(3)]
        for error in await asyncio.gather(*hanging, return_exceptions=True):
            assert isinstance(error, UnreachableError)
            assert "the storage did not answer within 0.1 s" in str(error)
        with pytest.raises(UnreachableError):
            await threads.run(lambda: 7)
        goes_on.set()
        return await threads.run(lambda: 7, 30)

    assert asyncio.run(scenario()) == 7


def test_what_may_take_something_is_waited_for_once_it_has_begun() -> None:
    async def scenario() -> str:
        return await Threads("the ledger", 1, 0.05, waits=True).run(lambda: time.sleep(0.3) or "taken")

    assert asyncio.run(scenario()) == "taken"


def test_renewals_count_as_not_served_where_the_system_has_no_thread_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def scenario() -> None:
        threads = Threads("the ledger", 1, 30)
        for _ in range(2):  # none is lost by it
            with pytest.raises(UnreachableError, match="can't start new thread"):
                await threads.run(lambda: 7)

    monkeypatch.setattr(threading.Thread, "start", full)
    asyncio.run(scenario())


def test_an_error_is_the_callers() -> None:
    with pytest.raises(ZeroDivisionError):
        asyncio.run(Threads("the ledger", 1, 30).run(lambda: 1 // 0))


def late_answer(renewals: Renewals) -> None:
    with renewals.serving():
        time.sleep(0.05)


def refused_answer(renewals: Renewals) -> None:
    with pytest.raises(UnreachableError), renewals.serving():
        raise UnreachableError("no thread was free")


def late_turn(renewals: Renewals) -> None:
    renewals.turned()
    time.sleep(0.05)
    renewals.turned()


def ticked(renewals: Renewals, first: float, last: float) -> bool:
    """What the last of the ticks says."""
    return [renewals.were_possible(hundredth / 100) for hundredth in range(int(first * 100), int(last * 100), 2)][-1]


@pytest.mark.parametrize("hindered", [late_answer, refused_answer, late_turn, Renewals.interrupted])
def test_leases_are_left_alone_after_a_time_in_which_renewals_were_not_served(
    hindered: Callable[[Renewals], None],
) -> None:
    renewals = Renewals(lease=3, late=0.04)
    assert ticked(renewals, 0, 4)
    hindered(renewals)
    assert not ticked(renewals, 4, 6.9)
    assert ticked(renewals, 6.9, 7.1)


def test_an_answer_that_is_still_to_come_counts_too() -> None:
    renewals = Renewals(lease=3, late=0.04)
    assert ticked(renewals, 0, 4)
    with renewals.serving():
        time.sleep(0.05)
        assert not renewals.were_possible(4)
