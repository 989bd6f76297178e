"""Long polls: who is woken, by what, and who is not."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from epochal.ledger.capacity import Node
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import EventKind, JobState, Reason
from epochal.ledger.values import AgentInfo, News
from epochal.server.notifier import QUEUE, Notifier, about, logs_of, room_of

NODE = Node("n", "n", {"CPU": 4.0}, {"CPU": 4.0})
NOTHING = News(frozenset(), frozenset(), frozenset(), False, False)


async def stays() -> bool:
    return False


def looking(look: Callable[[], Any]) -> Callable[[], Awaitable[Any]]:
    async def looks() -> Any:
        return look()

    return looks


def waits(scenario: Callable[[Notifier], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        notifier = Notifier()
        notifier.start()
        return await scenario(notifier)

    return asyncio.run(run())


def test_an_answer_that_is_there_is_given_at_once() -> None:
    assert waits(lambda notifier: notifier.poll([QUEUE], looking(lambda: 7), bool, 30, stays)) == 7


def test_a_change_from_another_thread_wakes_those_who_wait() -> None:
    found: list[int] = []

    async def scenario(notifier: Notifier) -> float:
        def change() -> None:
            found.append(1)
            notifier.notify(about("a"))

        threading.Timer(0.1, change).start()
        began = time.monotonic()
        assert await notifier.poll([about("a")], looking(found.copy), bool, 30, stays) == [1]
        return time.monotonic() - began

    assert waits(scenario) < 5


def test_a_change_of_something_else_wakes_nobody() -> None:
    looks: list[int] = []

    async def scenario(notifier: Notifier) -> None:
        threading.Timer(0.05, notifier.notify, (about("b"), QUEUE)).start()
        await notifier.poll([about("a")], looking(lambda: looks.append(1)), bool, 0.3, stays)

    waits(scenario)
    assert len(looks) == 1, "at the beginning: whatever would be found at the end was told of"


def test_a_change_while_one_looks_is_not_missed() -> None:
    async def scenario(notifier: Notifier) -> int:
        looks: list[int] = []

        def look() -> int:
            looks.append(1)
            if len(looks) == 1:
                notifier.notify(QUEUE)  # after this look, before the wait
            return len(looks)

        return await notifier.poll([QUEUE], looking(look), lambda seen: seen == 2, 30, stays)

    assert waits(scenario) == 2


def test_nothing_is_taken_for_a_client_that_is_gone() -> None:
    taken: list[int] = []

    async def gone() -> bool:
        return True

    async def scenario(notifier: Notifier) -> None:
        threading.Timer(0.05, notifier.notify, (QUEUE,)).start()
        await notifier.poll([QUEUE], looking(lambda: taken.append(1)), bool, 30, gone)

    waits(scenario)
    assert len(taken) == 1, "it looked once, before it waited"


def test_closing_answers_everyone() -> None:
    async def scenario(notifier: Notifier) -> list[None]:
        polls = [notifier.poll([about(str(number))], looking(lambda: None), bool, 30, stays) for number in range(20)]
        threading.Timer(0.1, notifier.close).start()
        return await asyncio.gather(*polls)

    began = time.monotonic()
    assert waits(scenario) == [None] * 20
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("topic", [QUEUE, about("a"), logs_of("a")])
def test_what_another_server_changed_is_noticed(topic: str) -> None:
    async def scenario(notifier: Notifier) -> bool:
        changed = threading.Event()

        async def news(seen: Set[int] | None) -> News:
            return News(frozenset(), frozenset({"a"}), frozenset(), True, False) if changed.is_set() else NOTHING

        watch = asyncio.create_task(notifier.watch(news))
        threading.Timer(0.1, changed.set).start()
        began = time.monotonic()
        assert await notifier.poll([topic], looking(changed.is_set), bool, 30, stays)
        watch.cancel()
        return time.monotonic() - began < 10

    assert waits(scenario)


def test_an_event_wakes_those_whom_it_concerns_and_nobody_else(tmp_path: Path) -> None:
    """With a real ledger: how often which poll looks again, out of one of each job and of each agent."""
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        jobs = [ledger.submit({"version": 1}, name="digits").id for _ in range(3)]
        for name in ("a", "b"):
            ledger.heartbeat(name, "1", [NODE], [], {})
        lease = ledger.lease("a/1", 60)
        assert lease is not None
        ledger.running(lease, 1)
        changes = {
            "note": lambda: ledger.note(lease, EventKind.WAITING),
            "finish": lambda: ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED),
            "pause": lambda: ledger.request_pause(jobs[1]),
        }
        looked = waits(lambda notifier: looks_after(notifier, ledger, jobs, changes))
    assert looked == {
        "note": {jobs[0]: 1},
        "finish": {jobs[0]: 1, "a": 1},
        "pause": {jobs[1]: 1, "a": 1, "b": 1},
    }


async def looks_after(
    notifier: Notifier, ledger: Ledger, jobs: list[str], changes: dict[str, Callable[[], Any]]
) -> dict[str, dict[str, int]]:
    reads = 0

    async def news(seen: Set[int] | None) -> News:
        nonlocal reads
        told = await asyncio.to_thread(ledger.news, seen)
        reads += 1
        return told

    async def woken() -> None:
        """Once the events of now were read for certain, and those whom they concern have looked."""
        until = reads + 3
        while reads < until:
            notifier.changed()
            await asyncio.sleep(0.01)

    watch = asyncio.create_task(notifier.watch(news))
    looks: Counter[str] = Counter()
    topics = {job: [about(job)] for job in jobs} | {name: [QUEUE, room_of(name)] for name in ("a", "b")}
    polls = [
        asyncio.create_task(notifier.poll(of, looking(lambda who=who: looks.update([who])), bool, 60, stays))
        for who, of in topics.items()
    ]
    await woken()  # the first look at the events wakes everyone
    found = {}
    for what, change in changes.items():
        looks.clear()
        await asyncio.to_thread(change)
        await woken()
        found[what] = dict(looks)
    notifier.close()
    await asyncio.gather(*polls)
    watch.cancel()
    return found


def test_a_heartbeat_wakes_its_agent_where_it_has_more_room() -> None:
    async def scenario(notifier: Notifier) -> list[int]:
        looks: Counter[str] = Counter()
        polls = [
            asyncio.create_task(
                notifier.poll([room_of(name)], looking(lambda name=name: looks.update([name])), bool, 60, stays)
            )
            for name in ("a", "b")
        ]
        seen = []
        for cpus, held in ((4.0, ""), (4.0, ""), (1.0, "x"), (2.0, "x"), (2.0, "xy"), (2.0, "y")):
            gangs = tuple((job, 1) for job in held)
            agent = AgentInfo("a", "1", (replace(NODE, available={"CPU": cpus}),), gangs, {}, 0.0, 0.0, True)
            notifier.heard(agent)
            await asyncio.sleep(0.05)
            seen.append(looks["a"])
        notifier.heard(replace(agent, seen_at=100.0))
        await asyncio.sleep(0.05)
        seen.append(looks["a"])
        assert looks["b"] == 1
        notifier.close()
        await asyncio.gather(*polls)
        return seen

    assert waits(scenario) == [2, 2, 2, 3, 3, 4, 5], "one that was away for long counted as gone"


def test_the_watcher_outlives_an_error_of_ours_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(notifier: Notifier) -> bool:
        looks: list[int] = []

        async def news(seen: Set[int] | None) -> News:
            if len(looks) < 3:
                raise ZeroDivisionError
            return NOTHING

        watch = asyncio.create_task(notifier.watch(news))
        poll = notifier.poll([QUEUE], looking(lambda: looks.append(1) or len(looks) >= 3), bool, 60, stays)
        found = await poll
        notifier.close()
        await asyncio.wait_for(watch, 60)
        return bool(found)

    assert waits(scenario)
    assert "the newest events cannot be read" in caplog.text


def test_nobody_is_left_waiting() -> None:
    async def scenario(notifier: Notifier) -> int:
        await notifier.poll([QUEUE], looking(lambda: None), bool, 0.01, stays)
        return notifier.waiting

    assert waits(scenario) == 0
