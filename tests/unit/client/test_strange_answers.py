"""What is in the way of an answer, or answers in another way than this version understands, is told as what it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from epochal.client import Client
from epochal.errors import EpochalError, UnreachableError, UsageError

pytestmark = pytest.mark.usefixtures("asked_once")

TOKEN = "ep_verysecret"
FAR = "http://epochal.invalid:8700"


@contextmanager
def answering(status: int, headers: dict[str, str], body: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    other = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=other.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{other.server_port}"
    finally:
        other.shutdown()
        thread.join()
        other.server_close()


def of_job(**fields: Any) -> bytes:
    return json.dumps({"jobs": [{"id": "a-1", **fields}], "next": None, "total": 1}).encode()


STRANGE: dict[str, tuple[int, dict[str, str], bytes, str]] = {
    "nothing": (200, {}, b"", "is not an Epochal server"),
    "null": (200, {}, b"null", "is not an Epochal server"),
    "list": (200, {}, b"[1, 2]", "is not an Epochal server"),
    "text": (200, {}, b'"ok"', "is not an Epochal server"),
    "html": (200, {}, b"<html>", "is not an Epochal server"),
    "cut": (200, {}, b'{"jobs": [', "is not an Epochal server"),
    "binary": (200, {}, b"\xff\xfe\x00", "is not an Epochal server"),
    "empty-object": (200, {}, b"{}", "'jobs' is missing in it"),
    "unknown-state": (200, {}, of_job(state="HIBERNATING"), "it is not a Job"),
    "no-fields": (200, {}, of_job(), "it is not a Job (number: Field required"),
    "gzip": (200, {"Content-Encoding": "gzip"}, b"no", "incorrect header check"),
    "to-https": (301, {"Location": "https://epochal.example.org/api/v1/jobs?x=1"}, b"", "sends on to https://epochal"),
    "to-login": (302, {"Location": "https://sso.example.org/login"}, b"", "sends on to https://sso.example.org/login"),
    "nowhere": (307, {}, b"", "sends on to nowhere"),
    "proxy-auth": (407, {}, b"", "answered 407"),
    "upgrade": (426, {}, b"", "answered 426"),
    "too-many": (429, {}, b"", "answered 429"),
    "gateway": (502, {}, b"<html>", "answered 502"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_an_answer_that_is_not_understood(name: str) -> None:
    status, headers, body, said = STRANGE[name]
    with (
        answering(status, headers, body) as url,
        Client(url, TOKEN) as client,
        pytest.raises(EpochalError) as caught,
    ):
        client.jobs()
    assert said in str(caught.value)
    assert "verysecret" not in f"{caught.value} {caught.value.hint}"


CALLS: dict[str, Callable[[Client], object]] = {
    "job": lambda client: client.job("a"),
    "attempts": lambda client: client.attempts("a"),
    "events": lambda client: list(client.events("a")),
    "logs": lambda client: list(client.logs("a")),
    "why": lambda client: client.why("a"),
    "queue": lambda client: client.queue(),
    "agents": lambda client: client.agents(),
    "tokens": lambda client: client.tokens(),
    "quotas": lambda client: client.quotas(),
}


@pytest.mark.parametrize("call", CALLS)
def test_no_call_takes_another_product_s_answer(call: str) -> None:
    with (
        answering(200, {"Date": "never"}, b'{"status": "ok"}') as url,
        Client(url, TOKEN) as client,
        pytest.raises(UnreachableError, match="not understood") as caught,
    ):
        CALLS[call](client)
    assert "another version" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HTTP_PROXY", "foo://ada:verysecret@x", "Unknown scheme for proxy"),
        ("ALL_PROXY", "socks5://127.0.0.1:9", "socksio"),
        ("HTTP_PROXY", "http://127.0.0.1:eight", "Invalid port"),
        ("NO_PROXY", "[::", "Invalid port"),
        ("SSL_CERT_FILE", "/nowhere", "No such file"),
    ],
    ids=["scheme", "socks", "port", "no-proxy", "certificates"],
)
def test_an_environment_that_cannot_be_used(name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="that are set cannot be used") as caught:
        Client(FAR.replace("http:", "https:"), TOKEN)
    assert said in str(caught.value)
    assert "verysecret" not in str(caught.value)
    assert name in caught.value.hint


def test_certificates_are_read_for_https_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    Client(FAR, TOKEN).close()


@pytest.mark.parametrize("named", ["http://127.0.0.1:9", "127.0.0.1:9", "http://ada:verysecret@127.0.0.1:9"])
def test_a_proxy_that_is_away_is_not_the_server(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", named)
    with Client(FAR, TOKEN) as client, pytest.raises(UnreachableError) as caught:
        client.jobs()
    assert "by way of the proxy" in str(caught.value)
    assert "127.0.0.1:9" in str(caught.value)
    assert "verysecret" not in str(caught.value)
    assert "NO_PROXY" in caught.value.hint
