"""Threads for what may take long, so many of a kind: whatever hangs takes none from the others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from epochal.errors import UnreachableError
from epochal.redaction import said

T = TypeVar("T")


class Threads:
    """Makes at most ``most`` calls at a time, each in a thread, which is kept for later calls.

    Not ``asyncio.to_thread``: the threads of that are waited for when the process ends, and these may hang.

    Args:
        what: is said not to have answered in time.
        seconds: after which a call that has got no thread is refused.
        waits: for a call that has begun, whatever it takes: it may take something that nobody would know of. Otherwise
            it is given up after the same time; it keeps its thread until it ends, and does not keep the process alive.
    """

    def __init__(self, what: str, most: int, seconds: float, *, waits: bool = False) -> None:
        self._what = what
        self._free = asyncio.Semaphore(most)
        self._seconds = seconds
        self._waits = waits
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._idle = 0
        self._closed = False

    async def run(self, call: Callable[[], T], seconds: float | None = None) -> T:
        """What ``call`` gives.

        Raises:
            UnreachableError: not in time (``seconds``, where it is not the usual time), or there is no thread for it.
        """
        seconds = seconds or self._seconds
        try:
            async with asyncio.timeout(seconds) as limit:
                await self._free.acquire()
                if self._waits:
                    limit.reschedule(None)
                return await self._begun(call)
        except TimeoutError:
            hint = "it is tried again by itself; the server's log and `epochal doctor` may say more"
            raise UnreachableError(f"{self._what} did not answer within {seconds:g} s", hint) from None

    def close(self) -> None:
        """Let the threads end, each after the call that it makes. To be called once nothing is asked any more."""
        for _ in range(self._idle):
            self._calls.put(None)
        self._closed = True  # for those that are busy now

    def _begun(self, call: Callable[[], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def settle(tell: Callable[[Any], None], told: Any) -> None:
            self._idle += 1
            self._free.release()
            if not answer.done():
                tell(told)

        def work() -> None:
            try:
                settled: tuple[Callable[[Any], None], Any] = (answer.set_result, call())
            except BaseException as error:
                settled = (answer.set_exception, error)
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(settle, *settled)

        if self._idle:
            self._idle -= 1
        else:
            try:
                threading.Thread(target=self._work, name=f"for {self._what}", daemon=True).start()
            except RuntimeError as error:
                self._free.release()
                hint = "the system has no thread left: raise its limits, or end what has so many"
                raise UnreachableError(f"{self._what} cannot be asked now: {said(error)}", hint) from error
        self._calls.put(work)
        return answer

    def _work(self) -> None:
        while not self._closed and (work := self._calls.get()) is not None:
            work()
