"""Long polls: an answer that waits until there is something to tell.

A change made through this process wakes those who wait for it at once. What other servers of the same ledger changed is
noticed by one watcher, however many wait, so that a waiting client costs neither a thread nor queries.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import TypeVar

from starlette.concurrency import run_in_threadpool

from epochal.errors import EpochalError

Answer = TypeVar("Answer")

QUEUE = "queue"
"""Whatever may let a queued job start."""
WATCH_SECONDS = 0.25
_LOG_TURNS = 4
_LOGS = "logs:"


def about(job_id: str) -> str:
    """The topic of a job's state and events."""
    return f"job:{job_id}"


def logs_of(job_id: str) -> str:
    return f"{_LOGS}{job_id}"


class Notifier:
    """Wakes those who wait for a topic. ``notify`` and ``close`` may be called from any thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self.closed = False

    def start(self) -> None:
        """Belong to the running event loop."""
        self._loop = asyncio.get_running_loop()

    @property
    def waiting(self) -> int:
        return sum(len(events) for events in self._waiting.values())

    def notify(self, *topics: str) -> None:
        self._in_loop(lambda: self._wake(topics))

    def close(self) -> None:
        """Answer everyone now, and whoever comes from now on without waiting."""
        self.closed = True
        self._in_loop(lambda: self._wake(tuple(self._waiting)))

    async def poll(
        self,
        topic: str,
        look: Callable[[], Awaitable[Answer]],
        enough: Callable[[Answer], bool],
        wait: float,
        gone: Callable[[], Awaitable[bool]],
    ) -> Answer:
        """What ``look`` finds once it is ``enough`` or ``wait`` seconds have passed or the client is
        ``gone``: nothing is looked for any more then, as looking may take something (a lease)."""
        until = time.monotonic() + wait
        while True:
            with self._listening(topic) as woken:  # before looking, so that no change goes unnoticed
                found = await look()
                left = until - time.monotonic()
                if enough(found) or left <= 0 or self.closed:
                    return found
                await _wait(woken, left)
            if await gone():
                return found

    async def watch(self, token: Callable[[], int]) -> None:
        """Wake everyone when ``token`` changes, which others than this process may have changed."""
        seen = None
        for turn in count():
            await asyncio.sleep(WATCH_SECONDS)
            if self.closed:
                return
            if not self._waiting:
                seen = None
                continue
            if turn % _LOG_TURNS == 0:  # logs make no events
                self._wake(tuple(topic for topic in self._waiting if topic.startswith(_LOGS)))
            newest = await run_in_threadpool(_asked, token)
            if newest != seen:
                seen = newest
                self._wake(tuple(self._waiting))

    @contextmanager
    def _listening(self, topic: str) -> Iterator[asyncio.Event]:
        event = asyncio.Event()
        self._waiting.setdefault(topic, set()).add(event)
        try:
            yield event
        finally:
            events = self._waiting[topic]
            events.discard(event)
            if not events:
                del self._waiting[topic]

    def _wake(self, topics: tuple[str, ...]) -> None:
        for topic in topics:
            for event in self._waiting.get(topic, ()):
                event.set()

    def _in_loop(self, call: Callable[[], None]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call)


def _asked(token: Callable[[], int]) -> int | None:
    """None where the database does not answer: whoever waits finds that out by looking."""
    try:
        return token()
    except EpochalError:
        return None


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
