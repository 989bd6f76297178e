"""Whoever has no token costs the server next to nothing."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection

import httpx
import pytest

from epochal.errors import AuthError
from epochal.ledger.ledger import Ledger
from epochal.ledger.values import Token
from epochal.server.auth import Gate
from running_server import API, RunningServer, settings_in


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(settings_in(tmp_path_factory.mktemp("server"))) as running:
        yield running


@pytest.mark.parametrize("path", ["/jobs", "/tokens", "/agents/a/lease", "/leases/renew", "/jobs/a/stop"])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}])
def test_the_body_of_a_stranger_is_not_even_read(server: RunningServer, path: str, headers: dict[str, str]) -> None:
    host, _, port = server.url.removeprefix("http://").partition(":")
    told = {"Content-Type": "application/json", "Content-Length": str(2**20), **headers}
    with closing(HTTPConnection(host, int(port), timeout=20)) as connection:
        connection.request("POST", f"{API}{path}", headers=told)
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Connection")) == (401, "close")


METHODS = ["COPY", "LOCK", "MKCOL", "MOVE", "PROPFIND", "SEARCH", "UNLOCK", "REPORT", "MERGE", "PURGE", "LINK", "ACL"]
MANY_HEADERS = b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 100_000


def test_methods_that_nothing_here_has_make_no_metrics_of_their_own(server: RunningServer) -> None:
    with httpx.Client(base_url=server.url) as anyone:
        anyone.request("TRACE", "/healthz")
        before = server.admin.get(f"{server.url}/metrics").text
        assert anyone.request("INVENTED", "/healthz").status_code == 400
        for method in METHODS:
            for path in ("/healthz", "/nowhere", f"{API}/jobs", f"{API}/jobs/x"):
                assert anyone.request(method, path).status_code in (401, 404, 405)
        after = server.admin.get(f"{server.url}/metrics").text
    assert not any(f'"{method}"' in after for method in (*METHODS, "INVENTED"))
    assert 'method="other"' in after
    assert len(after.splitlines()) < len(before.splitlines()) + 4 * 20, "a histogram each for four routes"


@pytest.mark.parametrize(
    "start", [b"GET /", b"GET / HTTP/1.1\r\nX-Long: ", MANY_HEADERS], ids=["address", "header", "headers"]
)
def test_a_head_without_end_is_refused(server: RunningServer, start: bytes) -> None:
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(start + b"x" * (2**20 - len(start)))
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(20)
        connection.sendall(b"x")
        answer = connection.recv(1000)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert "more than 1,048,576 bytes" in json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]


@pytest.mark.parametrize(
    "request_line",
    [b"INVENTED / HTTP/1.1", b"GET /" + b"x" * 70_000 + b" HTTP/1.1", b"\x16\x03\x01", b"GET / HTTP/9.9"],
    ids=["method", "address", "tls", "version"],
)
def test_what_is_no_request_is_told_so_in_our_words(server: RunningServer, request_line: bytes) -> None:
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(request_line + b"\r\nHost: x\r\n\r\n")
        answer = connection.recv(1000)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert "is not understood" in json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]


PAGES = ["/", "/index.html", "/static/app.js", "/healthz", "/readyz", f"{API}/jobs", f"{API}/overview", f"{API}/whoami"]


@pytest.mark.parametrize("path", PAGES)
def test_what_is_read_with_get_has_a_head(server: RunningServer, path: str) -> None:
    head, get = (server.admin.request(method, server.url + path) for method in ("HEAD", "GET"))
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["Content-Type"] == get.headers["Content-Type"]


def test_a_head_is_counted_as_one(server: RunningServer) -> None:
    server.admin.head("/jobs")
    assert f'method="HEAD",route="{API}/jobs"' in server.admin.get(f"{server.url}/metrics").text


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", f"{API}/jobs", "HEAD, GET, POST"),
        ("PATCH", f"{API}/jobs/x", "HEAD, GET"),
        ("GET", f"{API}/jobs/x/stop", "POST"),
        ("HEAD", f"{API}/jobs/x/stop", "POST"),
        ("DELETE", f"{API}/tokens", "HEAD, GET, POST"),
        ("PUT", f"{API}/tokens/x", "DELETE"),
        ("GET", f"{API}/quotas/user/ada", "PUT, DELETE"),
        ("DELETE", f"{API}/code/{'0' * 64}", "HEAD, GET, PUT"),
        ("POST", "/", "HEAD, GET"),
        ("POST", "/healthz", "HEAD, GET"),
    ],
)
def test_what_is_allowed_is_told(server: RunningServer, method: str, path: str, allowed: str) -> None:
    answer = server.admin.request(method, server.url + path)
    assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)


class CountingLedger(Ledger):
    asked = 0

    def token(self, secret: str) -> Token | None:
        self.asked += 1
        return super().token(secret)


def test_a_wrong_token_is_looked_up_once_and_a_new_one_is_taken_at_once() -> None:
    async def scenario(ledger: CountingLedger) -> None:
        gate = Gate(ledger)
        for _ in range(100):
            with pytest.raises(AuthError):
                await gate.principal("ep_wrong")
        assert ledger.asked == 1
        _, secret = ledger.create_token("ada", "user")
        assert (await gate.principal(secret)).user == "ada"

    with CountingLedger.open("sqlite://") as ledger:
        asyncio.run(scenario(ledger))


def test_wrong_tokens_are_not_remembered_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epochal.server.auth._KEPT_TOKENS", 10)

    async def scenario(ledger: CountingLedger) -> None:
        gate = Gate(ledger)
        _, secret = ledger.create_token("ada", "user")
        await gate.principal(secret)
        for number in range(35):
            with pytest.raises(AuthError):
                await gate.principal(f"ep_wrong{number}")
        assert len(gate._unknown) <= 10
        await gate.principal(secret)
        assert ledger.asked == 36, "those that are known are not forgotten for them"

    with CountingLedger.open("sqlite://") as ledger:
        asyncio.run(scenario(ledger))
