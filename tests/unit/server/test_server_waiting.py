"""Long polls: who is woken, by what, and who is not."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from epochal.server.waiting import QUEUE, Notifier, about, logs_of


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
    assert waits(lambda notifier: notifier.poll(QUEUE, looking(lambda: 7), bool, 30, stays)) == 7


def test_a_change_from_another_thread_wakes_those_who_wait() -> None:
    found: list[int] = []

    async def scenario(notifier: Notifier) -> float:
        def change() -> None:
            found.append(1)
            notifier.notify(about("a"))

        threading.Timer(0.1, change).start()
        began = time.monotonic()
        assert await notifier.poll(about("a"), looking(found.copy), bool, 30, stays) == [1]
        return time.monotonic() - began

    assert waits(scenario) < 5


def test_a_change_of_something_else_wakes_nobody() -> None:
    looks: list[int] = []

    async def scenario(notifier: Notifier) -> None:
        threading.Timer(0.05, notifier.notify, (about("b"), QUEUE)).start()
        await notifier.poll(about("a"), looking(lambda: looks.append(1)), bool, 0.3, stays)

    waits(scenario)
    assert len(looks) == 2, "at the beginning and at the end"


def test_a_change_while_one_looks_is_not_missed() -> None:
    async def scenario(notifier: Notifier) -> int:
        looks: list[int] = []

        def look() -> int:
            looks.append(1)
            if len(looks) == 1:
                notifier.notify(QUEUE)  # after this look, before the wait
            return len(looks)

        return await notifier.poll(QUEUE, looking(look), lambda seen: seen == 2, 30, stays)

    assert waits(scenario) == 2


def test_nothing_is_taken_for_a_client_that_is_gone() -> None:
    taken: list[int] = []

    async def gone() -> bool:
        return True

    async def scenario(notifier: Notifier) -> None:
        threading.Timer(0.05, notifier.notify, (QUEUE,)).start()
        await notifier.poll(QUEUE, looking(lambda: taken.append(1)), bool, 30, gone)

    waits(scenario)
    assert len(taken) == 1, "it looked once, before it waited"


def test_closing_answers_everyone() -> None:
    async def scenario(notifier: Notifier) -> list[None]:
        polls = [notifier.poll(about(str(number)), looking(lambda: None), bool, 30, stays) for number in range(20)]
        threading.Timer(0.1, notifier.close).start()
        return await asyncio.gather(*polls)

    began = time.monotonic()
    assert waits(scenario) == [None] * 20
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("topic", [QUEUE, about("a"), logs_of("a")])
def test_what_another_server_changed_is_noticed(topic: str) -> None:
    async def scenario(notifier: Notifier) -> bool:
        changed = threading.Event()
        watch = asyncio.create_task(notifier.watch(lambda: int(changed.is_set())))
        threading.Timer(0.1, changed.set).start()
        began = time.monotonic()
        assert await notifier.poll(topic, looking(changed.is_set), bool, 30, stays)
        watch.cancel()
        return time.monotonic() - began < 10

    assert waits(scenario)


def test_nobody_is_left_waiting() -> None:
    async def scenario(notifier: Notifier) -> int:
        await notifier.poll(QUEUE, looking(lambda: None), bool, 0.01, stays)
        return notifier.waiting

    assert waits(scenario) == 0
