"""Whoever has no token costs the server next to nothing."""

from __future__ import annotations

import asyncio
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


def test_invented_methods_make_no_metrics_of_their_own(server: RunningServer) -> None:
    with httpx.Client(base_url=server.url) as anyone:
        anyone.request("INVENTED", "/healthz")
        before = server.admin.get(f"{server.url}/metrics").text
        for number in range(50):
            for path in ("/healthz", "/nowhere", f"{API}/jobs", f"{API}/jobs/{number}"):
                anyone.request(f"INVENTED{number}", path)
        after = server.admin.get(f"{server.url}/metrics").text
    assert "INVENTED" not in after
    assert 'method="other"' in after
    assert len(after.splitlines()) < len(before.splitlines()) + 4 * 20, "a histogram each for four routes"


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
