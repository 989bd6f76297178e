"""Waits that a signal ends at once."""

from __future__ import annotations

import select
import signal
import socket
from types import TracebackType
from typing import Self


class Wake:
    """Within the ``with`` block, ``wait`` sleeps until a signal comes; ``stop`` and ``now`` say which ones came.

    SIGTERM asks for a graceful end, SIGINT for one at once; SIGCHLD only wakes.
    """

    def __init__(self) -> None:
        self.stop = False
        self.now = False

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        for end in (self._reader, self._writer):
            end.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._asked)
        signal.signal(signal.SIGINT, self._asked)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()

    def wait(self, seconds: float) -> None:
        readable, _, _ = select.select([self._reader], [], [], seconds)
        if readable:
            self._reader.recv(4096)

    def _asked(self, number: int, frame: object) -> None:
        self.stop = True
        self.now = self.now or number == signal.SIGINT
