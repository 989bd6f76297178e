"""What shows a part of a list says so, how much there is, and what shows the rest."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest
from rich.console import Console

from epochal.agent.progress import ProgressLog
from epochal.cli import render
from epochal.cli.job_view import shortened
from epochal.cli.main import main
from epochal.cli.progress import LiveDisplay, described
from epochal.client import Client
from epochal.engine.events import redacted
from epochal.engine.failure import Evidence, Failed, FailureKind
from epochal.errors import did_you_mean
from epochal.ledger.states import EventKind, JobState, Reason
from epochal.ledger.values import Lease
from epochal.redaction import Redactor
from epochal.training.control import Progress
from epochal.training.data_summary import ClassCount, DataSummary
from epochal.training.weights import Matched
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
        (["-o", "json"], 20, "20 of 230 are shown; the rest: --limit 230"),
        (["-o", "json", "--waiting", "--limit", "230"], 230, ""),
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
def test_a_list_of_jobs(asked: list[str], shown: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs", "-o", "name", *asked]) == 0
    told = capsys.readouterr()
    assert len(json.loads(told.out) if "json" in asked else told.out.split()) == shown
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


def trains(server: RunningServer, name: str) -> Lease:
    job = server.ledger.submit(SPEC, name=name, submitted_by="ada")
    lease = server.ledger.lease("agent/1", 60, job.id)
    assert lease is not None
    server.ledger.running(lease, world_size=1)
    return lease


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """With one of each thing that is too much to be shown."""
    with RunningServer(settings_in(tmp_path_factory.mktemp("full"))) as running:
        lease = trains(running, "told")
        metrics = {f"val/m{number}": 0.5 for number in range(12)}
        told = {"step": 3, "total_steps": 9, "metrics": metrics, "more_metrics": 4}
        running.ledger.renew(lease, 60, told)
        running.ledger.note(lease, EventKind.NOTED, "the first line\nand another")
        running.ledger.finish(lease, JobState.FAILED, Reason.USER_ERROR, "it failed\nin many words")
        old = trains(running, "old")
        running.ledger.finish(old, JobState.SUCCEEDED, Reason.COMPLETED)
        assert list(running.ledger.prune(0.0, None))
        fresh = trains(running, "told")
        running.ledger.renew(fresh, 60, told)
        running.ledger.set_data(fresh, DataSummary("csv", "t.csv", "d", 12, 3, classes=CLASSES).first(2).to_dict())
        running.ledger.note(fresh, EventKind.NOTED, "the first line\nand another")
        yield running


CLASSES = tuple(ClassCount(str(number), 4, 1) for number in range(3))


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("status told", "more metrics  4: `epochal runs show RUN --all` has them"),
        ("status told", "data          12 samples to train on, 3 to validate on, 3 classes"),
        ("events told", "the first line ... (-o json has all of it)"),
        ("events old", "what happened before is not kept: the server deletes old events"),
        ("jobs --state failed", "it failed..."),
        ("status told-", "'told-' fits several jobs"),
    ],
)
def test_of_one_job(
    typed: str, said: str, full: RunningServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPOCHAL_SERVER", full.url)
    monkeypatch.setenv("EPOCHAL_TOKEN", full.ledger.create_token("ada", "user")[1])
    main(typed.split())
    told = capsys.readouterr()
    assert said in told.out + told.err


def test_what_a_name_fits_and_what_is_wrong_with_a_request(
    server: RunningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "digits-"]) == 4
    told = capsys.readouterr().err
    assert "and 225 more" in told
    assert "give more of the id; `epochal jobs` lists them" in told
    asked = "&".join(f"unknown{number}=1" for number in range(9))
    assert "; and 4 more problems" in server.admin.get(f"/jobs?{asked}").json()["error"]["message"]


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("short", "short"),
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 57 + "..."),
        ("one\ntwo", "one..."),
        ("one\n", "one"),
        ("", ""),
    ],
    ids=["short", "60", "61", "lines", "break", "none"],
)
def test_a_message_in_a_table(message: str, shown: str) -> None:
    assert shortened(message) == shown


@pytest.mark.parametrize(("lines", "said"), [(8, ""), (9, "... 1 more above"), (40, "... 32 more above")])
def test_lines_below_a_log(lines: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    render.Below().draw([f"rank {number}" for number in range(lines)])
    shown = capsys.readouterr().out.splitlines()
    assert shown[-8:] == [f"rank {number}" for number in range(lines)][-8:]
    assert "\n".join(shown[:-8]) == said


@pytest.mark.parametrize(("metrics", "said"), [(3, ""), (4, "+1 val/"), (9, "+6 val/")])
def test_metrics_beside_a_bar(metrics: int, said: str) -> None:
    told = described(Progress("train", 1, 2, 0, 1.0, {f"val/{number}": 0.5 for number in range(metrics)}))
    assert [one for one in told if one.startswith("+")] == ([said] if said else [])
    assert len(told) == min(metrics, 3) + bool(said)


@pytest.mark.parametrize(("ranks", "said"), [(8, False), (11, True)])
def test_ranks_that_have_begun_a_line(ranks: int, said: bool) -> None:
    with LiveDisplay() as shown:
        for rank in range(ranks):
            shown.log(rank, "", "step 1")
        console = Console(file=io.StringIO(), width=60)
        console.print(shown._rows())
        assert ("... and 3 more ranks" in console.file.getvalue()) is said  # type: ignore[attr-defined]


@pytest.mark.parametrize(("values", "drawn"), [(60, 60), (61, 60), (5000, 60)])
def test_a_curve_and_the_metrics_of_a_progress(values: int, drawn: int) -> None:
    log = ProgressLog()
    for step in range(1, values + 1):
        log.add(
            Progress("train", step, 9999, 0, 1.0, {"train/loss": 1.0, **dict.fromkeys("abcdefghijklmn", 0.5)}), step
        )
    document = log.document()
    assert (len(document["loss_history"]), document["loss_values"]) == (drawn, values)
    assert (len(document["metrics"]), document["more_metrics"]) == (12, 3)


def test_a_traceback_keeps_its_beginning_and_its_end() -> None:
    trace = "Traceback\n" + "frame\n" * 9000 + "KeyError: 'x'"
    failed = Failed(0, FailureKind.USER_ERROR, "KeyError: 'x'", trace, Evidence.EXCEPTION)
    told = redacted(failed, Redactor([]))
    assert isinstance(told, Failed)
    assert told.traceback.startswith("Traceback\n")
    assert told.traceback.endswith("KeyError: 'x'")
    assert "34023 characters left out" in told.traceback


def test_weights_by_name() -> None:
    matched = Matched((), tuple("abcdefg"), (), ())
    assert "7 not in the file: a, b, c, d, e and 2 more" in str(matched)


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (3, "did you mean 'job-2' or 'job-1' or 'job-0'?"),
        (9, "did you mean 'job-8' or 'job-7' or 'job-6', or one of 6 more?"),
    ],
)
def test_names_that_are_close(known: int, said: str) -> None:
    assert did_you_mean("job", tuple(f"job-{number}" for number in range(known))) == said
