"""Every route answers as the others do, and everything that the page asks for is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import epochal.server
from running_server import API, SPEC, RunningServer, settings_in

PAGE = Path(epochal.server.__file__).parent / "page"
EVERY_METHOD = ("GET", "POST", "PUT", "DELETE", "PATCH")
FILLED = {"{digest}": "0" * 64, "{kind}": "user", "{rank}": "0"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(settings_in(tmp_path_factory.mktemp("server"))) as running:
        yield running


@pytest.fixture(scope="module")
def paths(server: RunningServer) -> dict[str, dict[str, Any]]:
    return server.admin.get("/openapi.json").json()["paths"]


def filled(path: str) -> str:
    return re.sub(r"\{\w+\}", lambda found: FILLED.get(found[0], "x"), path)


def test_every_path_has_a_head_where_it_has_a_get_and_tells_its_methods(
    server: RunningServer, paths: dict[str, dict[str, Any]]
) -> None:
    assert len(paths) > 20
    client = server.admin
    for path, described in paths.items():
        has = {method.upper() for method in described}
        address = server.url + filled(path)
        head = client.head(address)
        if "GET" in has:
            assert head.status_code == client.get(address).status_code != 405, path
            has.add("HEAD")
        else:
            assert head.status_code == 405, path
        for method in set(EVERY_METHOD) - has:
            answer = client.request(method, address)
            assert (answer.status_code, set(answer.headers["Allow"].split(", "))) == (405, has), (method, path)


def test_every_file_that_the_page_names_is_there(server: RunningServer) -> None:
    client = server.admin
    waiting, seen = ["/"], set()
    while waiting:
        address = waiting.pop()
        seen.add(address)
        answer = client.get(server.url + address)
        assert answer.status_code == 200, address
        named = re.findall(r'(?:href|src)="([^"#]+)"|from "([^"]+)"', answer.text)
        folder = "/static/" if address.startswith("/static/") else "/"
        for name in ("".join(pair).removeprefix("./") for pair in named):
            found = name if name.startswith("/") else folder + name
            if found not in seen:
                waiting.append(found)
    files = {address.rpartition("/")[2] for address in seen} - {""}
    assert files == {one.name for one in PAGE.iterdir()} - {"index.html"}


def test_everything_that_the_page_asks_for_is_a_route(server: RunningServer, paths: dict[str, dict[str, Any]]) -> None:
    code = "\n".join(one.read_text(encoding="utf-8") for one in PAGE.glob("*.js"))
    jobs = {f"{API}/jobs/{{job}}/{what}" for what in re.findall(r'jobPath\([\w.#]+, "(\w+)"\)', code)}
    actions = {
        f"{API}/jobs/{{job}}/{name}" for name in re.findall(r'\{\s*name: "(\w+)", label: "[\w ]+", allows', code)
    }
    plain = {f"{API}/{name}" for name in re.findall(r'request\(["`](\w+)', code)}
    known = {re.sub(r"jobs/\{\w+\}", "jobs/{job}", path) for path in paths}
    assert len(jobs) >= 4
    assert len(actions) == 4
    assert len(plain) >= 3
    assert not (jobs | actions | plain) - known


@pytest.mark.parametrize("name", ["mlflow_url", "counts", "running", "queue", "queued_more", "recent", "agents", "now"])
def test_the_overview_has_what_the_page_reads(server: RunningServer, name: str) -> None:
    server.ledger.submit(SPEC, name="digits", submitted_by="ada")
    assert name in server.admin.get("/overview").json()
