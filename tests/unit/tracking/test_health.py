"""Whether the tracking server is there, by what answers at its address."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from epochal.tracking.health import answers
from epochal.urls import free_port


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """One that gives every request the status that the test asks for."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(request.param if self.path == "/team/health" else 500)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}/team/"
        listening.shutdown()


@pytest.mark.parametrize(("server", "up"), [(200, True), (401, True), (502, False)], indirect=["server"])
def test_a_server_is_up_unless_it_answers_with_an_error_of_its_own(server: str, up: bool) -> None:
    assert answers(server) is up


def test_nobody_there_is_down_and_a_database_is_neither() -> None:
    assert answers(f"http://127.0.0.1:{free_port()}") is False
    assert answers("http://[broken") is False
    assert answers("sqlite:////data/mlflow.db") is None
