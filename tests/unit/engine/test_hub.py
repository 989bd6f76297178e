"""Where kept gangs call."""

from __future__ import annotations

import errno
import os
import socket
import threading
from typing import Any

import pytest

from epochal.engine.failure import FailureKind, of_exception
from epochal.engine.hub import Hub, reach
from epochal.errors import UnreachableError


def test_a_hub_that_had_no_descriptor_left_for_a_moment_hears_who_calls_later(monkeypatch: pytest.MonkeyPatch) -> None:
    accept, failures = socket.socket.accept, [errno.EMFILE, errno.ECONNABORTED]

    def accepted(listener: socket.socket) -> Any:
        if failures:
            raise OSError(code := failures.pop(), os.strerror(code))
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", accepted)
    with Hub("127.0.0.1") as hub, reach(hub.address, hub.key, 7) as worker:
        connection = hub.take(7, lambda: False)
        assert connection is not None
        with connection:
            connection.send_bytes(b"there")
            assert worker.recv_bytes() == b"there"


def test_a_worker_that_the_hub_has_no_thread_for_hears_so_and_the_next_one_is_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, failures = threading.Thread.start, ["can't start new thread"]

    def started(thread: threading.Thread) -> None:
        if failures:
            raise RuntimeError(failures.pop())
        start(thread)

    with Hub("127.0.0.1") as hub:
        monkeypatch.setattr(threading.Thread, "start", started)
        with pytest.raises(UnreachableError, match=r"does not answer at 127\.0\.0\.1:\d+: "):
            reach(hub.address, hub.key, 7)
        with reach(hub.address, hub.key, 8), hub.take(8, lambda: False) or pytest.fail("nobody called"):
            pass


def test_a_worker_whose_driver_is_gone_is_not_to_blame() -> None:
    with Hub("127.0.0.1") as hub:
        pass
    with pytest.raises(UnreachableError) as caught:
        reach(hub.address, hub.key, 7)
    assert of_exception(0, caught.value, "").kind is FailureKind.INFRASTRUCTURE
