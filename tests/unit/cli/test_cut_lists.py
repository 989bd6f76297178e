"""What shows a part of a list says so, how much there is, and what shows the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from epochal.cli.main import main
from epochal.client import Client
from running_server import SPEC, RunningServer, settings_in


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """With 230 jobs that wait, 30 of them ada's."""
    with RunningServer(settings_in(tmp_path_factory.mktemp("server"))) as running:
        for number in range(230):
            running.ledger.submit(SPEC, name="digits", submitted_by="ada" if number < 30 else "bob")
        yield running


@pytest.fixture(autouse=True)
def _connected(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHAL_SERVER", server.url)
    monkeypatch.setenv("EPOCHAL_TOKEN", server.ledger.create_token("ada", "user")[1])


@pytest.mark.parametrize(
    ("asked", "shown", "said"),
    [
        ([], 20, "20 of 230 are shown; the rest: --limit 230"),
        (["--limit", "120"], 120, "120 of 230 are shown; the rest: --limit 230"),
        (["--limit", "230"], 230, ""),
        (["--limit", "1000"], 230, ""),
        (["--mine"], 20, "20 of 30 are shown; the rest: --limit 30"),
        (["--user", "bob"], 20, "20 of 200 are shown; the rest: --limit 200"),
        (["--name", "digits", "--state", "queued"], 20, "20 of 230 are shown; the rest: --limit 230"),
        (["--name", "other"], 0, ""),
        (["--waiting"], 20, "20 of 230 are shown; the rest: --limit 230"),
        (["--waiting", "--mine"], 20, "20 of 30 are shown; the rest: --limit 30"),
        (["--waiting", "--limit", "230"], 230, ""),
        (["--waiting", "--user", "bob", "--limit", "200"], 200, ""),
    ],
)
@pytest.mark.parametrize("output", ["json", "name"])
def test_a_list_of_jobs(
    asked: list[str], shown: int, said: str, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["jobs", *asked, "-o", output]) == 0
    told = capsys.readouterr()
    assert len(json.loads(told.out) if output == "json" else told.out.split()) == shown
    assert told.err.strip() == said


def test_from_python_and_over_http(server: RunningServer) -> None:
    with Client() as client:
        assert [
            (len(found), found.total) for found in (client.jobs(limit=5), client.jobs(), client.jobs(limit=999))
        ] == [
            (5, 230),
            (100, 230),
            (230, 230),
        ]
        assert (len(client.queue(7)), client.queue(7).total, client.queue().total) == (7, 230, 230)
    assert server.admin.get("/jobs?limit=500").json()["total"] is None
