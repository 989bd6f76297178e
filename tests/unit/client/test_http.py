"""How the client copes with servers: real ones, that answer wrongly, late or not at all."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from httpcore._synchronization import ThreadLock

from epochal.client.http import Http, Patience, Request, foreign, stays_here
from epochal.client.remote_ledger import RemoteLedger
from epochal.client.renewal_batcher import RenewalBatcher
from epochal.errors import (
    AuthError,
    ConflictError,
    EpochalError,
    ForbiddenError,
    NotFoundError,
    TooLargeError,
    UnreachableError,
    UsageError,
    as_document,
)
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import JobState, Reason
from epochal.ledger.values import LeaseKey
from epochal.server.middleware import MAX_BODY
from epochal.urls import free_port

Answer = tuple[int, Any]


class Handler(BaseHTTPRequestHandler):
    """Answers what the test's function says; None hangs up without a word."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body at once: the body would wait 40 ms for the client to acknowledge the head

    def answer(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(size)
        self.server.seen.append(self)  # type: ignore[attr-defined]
        said = self.server.function(self)  # type: ignore[attr-defined]
        if said is None:
            self.close_connection = True
            return
        status, document = said
        raw = document if isinstance(document, bytes) else json.dumps(document).encode()
        with suppress(ConnectionError):  # the client is tired of waiting
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

    do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        return


@contextmanager
def serving(function: Callable[[Handler], Answer | None], port: int = 0) -> Iterator[tuple[str, list[Handler]]]:
    """A server that answers with ``function``: its URL, and the requests it has seen."""
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.function, server.seen = function, []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.seen  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def http(server: str, outage: float = 0.0, answer: float = 5.0) -> Http:
    return Http(server, "ep_secret", Patience(answer, outage))


def test_an_answer_comes_back_and_the_token_goes_along() -> None:
    with serving(lambda request: (200, {"path": request.path})) as (url, seen):
        answer = http(url).get("/jobs", {"limit": 3, "name": None, "state": ["A", "B"]})
    assert answer == {"path": "/api/v1/jobs?limit=3&state=A&state=B"}
    assert seen[0].headers["Authorization"] == "Bearer ep_secret"


def test_what_json_or_a_database_does_not_take_is_replaced() -> None:
    with serving(lambda _: (200, {})) as (url, seen):
        http(url).post("/x", {"loss": float("nan"), "said": ["\ud800 \x00", {"\x00": 1}]})
    assert json.loads(seen[0].body) == {"loss": "nan", "said": ["? \ufffd", {"\ufffd": 1}]}
    assert seen[0].headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    "error",
    [
        NotFoundError("job", "x", ("y", "z")),
        ConflictError("it runs", "stop it"),
        ForbiddenError("not yours"),
        TooLargeError("too much"),
        EpochalError("a fault"),
    ],
)
def test_a_server_s_error_is_raised_here(error: EpochalError) -> None:
    with serving(lambda _: (409, {"error": as_document(error)})) as (url, _), pytest.raises(type(error)) as caught:
        http(url).get("/jobs")
    assert (str(caught.value), caught.value.hint) == (str(error), error.hint)


def test_who_has_no_token_is_told_to_log_in() -> None:
    refusal = {"error": as_document(AuthError("no such token"))}
    with serving(lambda _: (401, refusal)) as (url, _), pytest.raises(AuthError) as caught:
        http(url).get("/jobs")
    assert "epochal login" in caught.value.hint


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, AuthError), (403, ForbiddenError), (404, UnreachableError), (409, ConflictError), (413, TooLargeError),
        (502, UnreachableError), (503, UnreachableError), (302, UnreachableError), (500, UnreachableError),
        (418, EpochalError),
    ],
)  # fmt: skip
def test_a_status_without_a_word_says_something_too(status: int, kind: type[EpochalError]) -> None:
    with serving(lambda _: (status, b"<html>")) as (url, _), pytest.raises(EpochalError) as caught:
        http(url).get("/jobs")
    assert type(caught.value) is kind


def test_another_server_on_the_port_is_not_ours() -> None:
    with (
        serving(lambda _: (200, b"<html>hello")) as (url, _),
        pytest.raises(UnreachableError, match="is not an Epochal server"),
    ):
        http(url).get("/jobs")


def test_nobody_there() -> None:
    with pytest.raises(UnreachableError, match="does not answer") as caught:
        http(f"http://127.0.0.1:{free_port()}").get("/jobs")
    assert "epochal up" in caught.value.hint


def test_an_answer_that_does_not_come_in_time() -> None:
    left = threading.Event()

    def late(_: Handler) -> Answer:
        left.wait(10)
        return 200, {}

    with serving(late) as (url, _):
        with pytest.raises(UnreachableError, match="in time"):
            http(url, answer=0.2).get("/jobs")
        left.set()


def test_a_wait_on_the_server_counts_as_no_lateness() -> None:
    def waits(_: Handler) -> Answer:
        time.sleep(0.4)
        return 200, {"came": True}

    with serving(waits) as (url, seen):
        assert http(url, answer=0.3).get("/jobs/x/events", wait=1.0) == {"came": True}
    assert seen[0].path.endswith("?wait=1.0")


def hanging_up_first(times: int) -> Callable[[Handler], Answer | None]:
    left = [times]

    def answer(_: Handler) -> Answer | None:
        left[0] -= 1
        return (200, {"done": True}) if left[0] < 0 else None

    return answer


def test_a_question_is_asked_again() -> None:
    with serving(hanging_up_first(2)) as (url, seen):
        assert http(url, outage=5.0).get("/jobs") == {"done": True}
    assert len(seen) == 3


def test_an_order_is_given_once_unless_that_is_safe() -> None:
    with serving(hanging_up_first(1)) as (url, seen):
        with pytest.raises(UnreachableError):
            http(url, outage=5.0).post("/jobs/x/retry")
        assert [request.command for request in seen].count("POST") == 1
    with serving(hanging_up_first(1)) as (url, seen):
        assert http(url, outage=5.0).post("/jobs", repeatable=True) == {"done": True}
        assert len(seen) == 2


def test_an_order_that_never_got_there_is_given_again() -> None:
    port, answers = free_port(), []
    asking = threading.Thread(target=lambda: answers.append(http(f"http://127.0.0.1:{port}", 10.0).post("/x")))
    asking.start()
    time.sleep(0.3)
    with serving(lambda _: (200, {"done": True}), port) as (_, seen):
        asking.join(10)
    assert (answers, len(seen)) == ([{"done": True}], 1)


def test_a_refusal_is_not_asked_for_again() -> None:
    refusal = {"error": as_document(NotFoundError("job", "x"))}
    with serving(lambda _: (404, refusal)) as (url, seen):
        with pytest.raises(NotFoundError):
            http(url, outage=5.0).get("/jobs/x")
        assert len(seen) == 1


def test_a_status_can_be_an_answer() -> None:
    with serving(lambda _: (404, b"")) as (url, _):
        response = http(url).send(Request("GET", "/code/x", answers=frozenset({404})))
    assert response.status_code == 404


def test_the_server_s_clock_is_known() -> None:
    with serving(lambda _: (200, {})) as (url, _):
        connection = http(url)
        connection.get("/jobs")
        assert abs(connection.now() - time.time()) < 2


def every_error(root: type[BaseException]) -> list[type[BaseException]]:
    return [root, *(one for below in root.__subclasses__() for one in every_error(below))]


@pytest.mark.parametrize("kind", [*every_error(httpx.RequestError), httpx.InvalidURL], ids=lambda kind: kind.__name__)
def test_every_error_of_the_library_is_one_of_ours(kind: type[Exception]) -> None:
    wrong_url = issubclass(kind, httpx.InvalidURL | httpx.UnsupportedProtocol)
    assert type(foreign(kind("went wrong"), "http://x")) is (UsageError if wrong_url else UnreachableError)


def test_loopback() -> None:
    assert all(map(stays_here, ("http://127.0.0.1:1", "http://localhost", "http://[::1]:80")))
    assert not any(map(stays_here, ("http://10.0.0.1", "https://epochal.example.org")))


@pytest.mark.parametrize(
    "answer", [{}, [], {"leases": [{"state": "RUNNING"}] * 3}, {"leases": [{"state": "MOODY"}] * 2}, {"leases": [1, 2]}]
)
def test_an_odd_answer_to_renewals_leaves_nobody_waiting(answer: Any) -> None:
    with serving(lambda _: (200, answer)) as (url, _), ThreadPoolExecutor(2) as threads:
        renewals = RenewalBatcher(http(url))
        leases = [LeaseKey("a-job", 1, "agent/1", "secret"), LeaseKey("another", 1, "agent/1", "secret")]
        for asked in [threads.submit(renewals.renew, lease, 30.0, None) for lease in leases]:
            with pytest.raises(UnreachableError, match=r"oddly|not understood|not an Epochal server"):
                asked.result(10)


def test_a_client_closes_after_ctrl_c_in_the_middle_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(lock: ThreadLock) -> None:
        lock._lock.acquire()
        raise KeyboardInterrupt

    http = Http("http://127.0.0.1:9")
    with monkeypatch.context() as patched:
        patched.setattr(ThreadLock, "__enter__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            http.get("/jobs")
    closing = threading.Thread(target=http.close, daemon=True)
    closing.start()
    closing.join(20)
    assert not closing.is_alive()


def test_how_a_job_ended_is_told_however_much_its_worker_says() -> None:
    with Ledger.open("sqlite://") as ledger:
        job = ledger.submit({"version": 1}, name="talkative").to_dict()
    with serving(lambda handler: (200, job)) as (url, seen), RemoteLedger(url) as remote:
        lease = LeaseKey(job["id"], 1, "agent", "secret")
        remote.finish(lease, JobState.FAILED, Reason.USER_ERROR, "x" * 3_000_000)  # type: ignore[arg-type]
    assert len(seen[-1].body) < MAX_BODY, "the server would refuse it, and the job be tried again"
    assert "characters left out" in json.loads(seen[-1].body)["message"]
