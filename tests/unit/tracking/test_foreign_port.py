"""A port that a program which is none of HTTP has taken."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

from epochal.tracking.server import TrackingServer


def test_what_is_none_of_http_is_no_answer_of_mlflow(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"\x00\x00\x18\x04\x00\n")

        thread = threading.Thread(target=greet)
        thread.start()
        server = TrackingServer(f"sqlite:///{tmp_path / 'mlflow.db'}", port=listening.getsockname()[1])
        assert not server._answers()
        thread.join(10)
