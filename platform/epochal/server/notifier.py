"""Long polls: an answer that waits until there is something to tell.

One watcher reads the ledger's newest events, however many wait, and wakes those whom they concern: at once after a
change that was made through this process, and soon after those of other servers of the same ledger. So a waiting client
costs neither a thread nor queries.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Set
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TypeVar

from epochal.errors import EpochalError
from epochal.ledger.agents import ALIVE_SECONDS
from epochal.ledger.capacity import Node
from epochal.ledger.values import AgentInfo, News

_logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

QUEUE = "queue"
"""Whatever may let any agent start a queued job."""
WATCH_SECONDS = 0.25
_REST_SECONDS = 0.05
"""Between two looks at the events, however many changes there are."""
_LOG_SECONDS = 1.0
_LOG_TOPICS = 100
"""Logs make no events. What other servers added is looked for once a second, in so many jobs' logs."""
_LOGS = "logs:"


def about(job_id: str) -> str:
    """A job's state and events."""
    return f"job:{job_id}"


def room_of(agent: str) -> str:
    """Whatever may let this agent start a queued job, by its name."""
    return f"room:{agent}"


def logs_of(job_id: str) -> str:
    return f"{_LOGS}{job_id}"


class Notifier:
    """Wakes those who wait for a topic. ``notify`` and ``close`` may be called from any thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._changed = asyncio.Event()
        self._agents: dict[str, AgentInfo] = {}
        self.closed = False

    def start(self) -> None:
        """Belong to the running event loop."""
        self._loop = asyncio.get_running_loop()

    @property
    def waiting(self) -> int:
        return len(set[asyncio.Event]().union(*self._waiting.values()))

    def notify(self, *topics: str) -> None:
        self._in_loop(lambda: self._wake(topics))

    def changed(self) -> None:
        """Have the watcher look at once: there is a new event."""
        self._in_loop(self._changed.set)

    def heard(self, agent: AgentInfo) -> None:
        """A heartbeat: the agent may start a queued job where it has more room than it told before."""
        before, self._agents[agent.name] = self._agents.get(agent.name), agent
        if before is None or _has_more_room(before, agent):
            self.notify(room_of(agent.name))

    def close(self) -> None:
        """Answer everyone now, and whoever comes from now on without waiting."""
        self.closed = True
        self._in_loop(lambda: self._wake(self._waiting))

    @contextmanager
    def listening(self, topics: Collection[str]) -> Iterator[asyncio.Event]:
        """An event that is set whenever one of them has changed, and when the server ends."""
        event = asyncio.Event()
        for topic in topics:
            self._waiting.setdefault(topic, set()).add(event)
        try:
            yield event
        finally:
            for topic in topics:
                self._waiting[topic].discard(event)
                if not self._waiting[topic]:
                    del self._waiting[topic]

    async def poll(
        self,
        topics: Collection[str],
        look: Callable[[], Awaitable[Answer]],
        enough: Callable[[Answer], bool],
        wait: float,
        gone: Callable[[], Awaitable[bool]],
    ) -> Answer:
        """What ``look`` finds once it is ``enough`` or ``wait`` seconds have passed or the client is ``gone``: nothing
        is looked for any more then, as looking may take something (a lease)."""
        until = time.monotonic() + wait
        while True:
            with self.listening(topics) as woken:  # before looking, so that no change goes unnoticed
                found = await look()
                left = until - time.monotonic()
                if enough(found) or left <= 0 or self.closed or not await is_set_within(woken, left):
                    return found
            if await gone():
                return found

    async def watch(self, news: Callable[[Set[int] | None], Awaitable[News]]) -> None:
        """Wake those whom ``news`` of the ledger concern, and look after logs that others than this process add to."""
        seen, logs_at = None, 0.0
        while not self.closed:
            await is_set_within(self._changed, WATCH_SECONDS)
            self._changed.clear()
            if not self._waiting:
                continue
            if time.monotonic() - logs_at >= _LOG_SECONDS:
                logs_at = time.monotonic()
                self._wake_logs()
            try:
                told = await news(seen)
            except Exception as error:  # whoever waits finds that out by looking, and goes on being woken
                if not isinstance(error, EpochalError):
                    _logger.exception("the newest events cannot be read, and are read again")
                seen = None
                self._wake(self._waiting)
            else:
                seen = told.seen
                self._wake(self._waiting if told.missed else _topics(told))
            await asyncio.sleep(_REST_SECONDS)

    def _wake(self, topics: Iterable[str]) -> None:
        for topic in topics:
            for event in self._waiting.get(topic, ()):
                event.set()

    def _wake_logs(self) -> None:
        """Those whose turn is longest ago."""
        for topic in list(islice((topic for topic in self._waiting if topic.startswith(_LOGS)), _LOG_TOPICS)):
            self._waiting[topic] = self._waiting.pop(topic)
            self._wake([topic])

    def _in_loop(self, call: Callable[[], None]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call)


def _has_more_room(before: AgentInfo, now: AgentInfo) -> bool:
    """Whether a job may fit that did not. A gang's share is counted from when it was leased, so a new one in ``held``
    leaves no more than there was."""
    if now.seen_at - before.seen_at > ALIVE_SECONDS:
        return True  # it counted as gone
    if (now.incarnation, now.storage) != (before.incarnation, before.storage) or not {*before.held} <= {*now.held}:
        return True
    known = {node.id: node for node in before.nodes}
    return any(node.id not in known or _has_more(known[node.id], node) for node in now.nodes)


def _has_more(before: Node, now: Node) -> bool:
    pairs = (now.total, before.total), (now.available, before.available)
    return any(amount > had.get(name, 0.0) for has, had in pairs for name, amount in has.items())


def _topics(news: News) -> Iterator[str]:
    for job_id in news.jobs:
        yield from (about(job_id), logs_of(job_id))
    yield from map(room_of, news.agents)
    if news.queued:
        yield QUEUE


async def is_set_within(event: asyncio.Event, seconds: float) -> bool:
    """Whether it is, or was set in that time."""
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()
