"""Where kept gangs call."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import pytest

from epochal.engine.hub import Hub, reach


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
