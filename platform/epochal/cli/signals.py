"""What a command that runs for long does about Ctrl-C and SIGTERM."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def first_asks(ask: Callable[[], None], end: Callable[[int], None]) -> Iterator[None]:
    """Within the ``with`` block the first Ctrl-C or SIGTERM calls ``ask``, each further one ``end`` with its number."""

    def handle(number: int, _frame: object) -> None:
        if asked:
            end(number)
        else:
            asked.append(number)
            ask()

    asked: list[int] = []
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
