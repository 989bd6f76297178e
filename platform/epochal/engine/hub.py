"""Where the kept gangs of a sweep ask their driver for work: a connection from each gang's first worker.

Messages are JSON. Python's own handshake keeps strangers out: who does not know the key is not heard.
"""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from types import TracebackType

from epochal.errors import UnreachableError
from epochal.redaction import named

_HANDSHAKE_SECONDS = 10.0
_PAUSE_SECONDS = 0.05


class Hub:
    """Listens on ``host``, on a port that the system chose. Use it as a context manager."""

    def __init__(self, host: str) -> None:
        self.key = secrets.token_hex(32)
        self._listener = socket.create_server((host, 0))
        self.address: tuple[str, int] = (host, self._listener.getsockname()[1])
        self._callers = count(1)
        self._connections: dict[int, Connection] = {}
        self._changed = threading.Condition()
        self._closed = False
        threading.Thread(target=self._accept, name="hub", daemon=True).start()

    def __enter__(self) -> Hub:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        with suppress(OSError):
            # Closing it does not wake the thread that waits in `accept`.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def caller(self) -> int:
        """The number by which one gang is known when it calls."""
        return next(self._callers)

    def take(self, caller: int, given_up: Callable[[], bool]) -> Connection | None:
        """The connection of that gang, once it is there; None once it is ``given_up``."""
        with self._changed:
            while caller not in self._connections:
                if given_up():
                    return None
                self._changed.wait(0.1)
            return self._connections.pop(caller)

    def _accept(self) -> None:
        while not self._closed:
            try:
                accepted, _ = self._listener.accept()
            except OSError:  # it is closed; or this process has no descriptor left, or who called has hung up
                time.sleep(_PAUSE_SECONDS)
                continue
            try:
                threading.Thread(target=self._greet, args=(accepted,), daemon=True).start()
            except RuntimeError:  # it has no thread left: who called hears so at once, and a new gang calls again
                accepted.close()

    def _greet(self, accepted: socket.socket) -> None:
        """Each in a thread of its own, so that a stranger who says nothing holds up nobody."""
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(accepted.detach())
        try:
            deliver_challenge(connection, self.key.encode())
            answer_challenge(connection, self.key.encode())
            caller = int(connection.recv_bytes(20))
        except (AuthenticationError, OSError, EOFError, ValueError):
            connection.close()
            return
        with self._changed:
            self._connections[caller] = connection
            self._changed.notify_all()


def reach(address: tuple[str, int], key: str, caller: int) -> Connection:
    """The worker's end.

    Raises:
        UnreachableError: the driver is not there, or does not let this one in.
    """
    try:
        reached = socket.create_connection(address, timeout=_HANDSHAKE_SECONDS)
        # One with a timeout has a descriptor that does not block, and `Connection` fails where there is nothing yet.
        reached.settimeout(None)
        reached.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(reached.detach())
        answer_challenge(connection, key.encode())
        deliver_challenge(connection, key.encode())
        connection.send_bytes(str(caller).encode())
    except (OSError, EOFError, AuthenticationError) as error:
        host, port = address
        hint = "each node has to reach the agent's, on any port"
        raise UnreachableError(
            f"the agent of the sweep does not answer at {host}:{port}: {named(error)}", hint
        ) from error
    return connection
