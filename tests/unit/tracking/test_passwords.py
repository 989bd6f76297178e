"""The password in a tracking URI is used, and is nowhere else."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from epochal.cli.main import main
from epochal.doctor.environment import variables
from epochal.errors import EpochalError
from epochal.ledger.database import Database
from epochal.ledger.maintenance import back_up
from epochal.local.local_plan import Options, local_plan
from epochal.server.storage import Storage
from epochal.settings import Home
from epochal.spec.load import load_spec
from epochal.tracking.connection import unreachable
from epochal.tracking.desired_run import DesiredRun
from epochal.tracking.server import plan_server
from epochal.tracking.software import without_values
from epochal.tracking.sync_state import SyncState, newest_experiment
from epochal.tracking.syncer import sync
from epochal.tracking.tracker import Tracker, sync_all
from polling import until

SECRET = "s3cretPW"
URI = f"http://mluser:{SECRET}@127.0.0.1:9/"
ASKED = f"API request to {URI}api/2.0/mlflow/runs failed"
JOBS = Path(__file__).parents[3] / "jobs"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    folder = tmp_path / "storage" / "jobs" / "digits-1"
    DesiredRun.of("digits-1", load_spec(JOBS / "quickstart.yaml").spec).save(folder)
    return folder


def test_a_server_that_does_not_answer(job: Path, caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    tracker = Tracker(URI, job, told.append, every=0.05)
    until(lambda: told, "a first try")
    last = tracker.close(0.2)
    assert last.pending
    assert not last.reachable
    assert told
    assert "MLflow at http://127.0.0.1:9/ cannot be reached" in told[0]
    assert SECRET not in " ".join([*told, repr(last), caplog.text])
    assert left_behind(job) == []
    # The thread that was closed may still be at its last try, which keeps others away.
    synced = until(lambda: not (one := sync_all(URI, job.parents[1], 1.0)["digits-1"]).reachable and one, "a try")
    assert SECRET not in repr(synced)


def test_what_an_earlier_version_kept_is_forgotten(job: Path) -> None:
    (job / "sync_state.json").write_text(json.dumps({"uri": URI, "experiment_id": "7"}))
    assert SyncState.load(job).uri == "http://127.0.0.1:9/"
    assert newest_experiment([job.parents[1]], [URI]) == "7"
    sync(URI, job)
    assert left_behind(job) == []


def left_behind(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_services_get_it_from_their_environment(tmp_path: Path) -> None:
    plan = local_plan(Home(tmp_path), Options(8700, 5000), URI)
    assert SECRET not in plan.to_json()
    assert plan.options["mlflow_url"] == "http://127.0.0.1:9/"
    assert all("MLFLOW_TRACKING_URI" not in service.environment for service in plan.services)
    assert local_plan(Home(tmp_path), Options(8700, 5000), "http://127.0.0.1:9/").services[0].environment


def raised_by(call: Callable[[], object]) -> str:
    with pytest.raises(EpochalError) as caught:
        call()
    return f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    "told",
    [
        lambda: str(unreachable(URI, OSError(ASKED))),
        lambda: raised_by(lambda: plan_server(URI)),
        lambda: raised_by(lambda: Database(f"postgre://ada:{SECRET}@db/x")),
        lambda: raised_by(lambda: back_up(f"postgresql://ada:{SECRET}@db/x", Path("copy.db"))),
        lambda: raised_by(lambda: Storage(f"nosuch://ada:{SECRET}@store/x")),
        lambda: variables({"MLFLOW_TRACKING_URI": f"http://ada:{SECRET}/x@mlflow"}).found,
    ],
    ids=["unreachable", "ui", "ledger", "backup", "storage", "doctor"],
)
def test_no_message_holds_it(told: Callable[[], str]) -> None:
    assert SECRET not in told()


@pytest.mark.parametrize(
    "words", [["runs", "list"], ["runs", "show", "x"], ["runs", "sync"], ["ui"], ["db", "upgrade"]], ids=" ".join
)
def test_no_command_prints_it(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setenv("MLFLOW_TRACKING_URI", URI)
    monkeypatch.setenv("EPOCHAL_LEDGER", f"postgresql://ada:{SECRET}@127.0.0.1:9/x")
    with caplog.at_level(logging.DEBUG):
        main(words)
    printed = capsys.readouterr()
    assert printed.out + printed.err
    assert SECRET not in printed.out + printed.err + caplog.text


def test_the_values_of_variables_are_no_part_of_the_command() -> None:
    typed = [f"env.TOKEN={SECRET}", f"-senv.TOKEN={SECRET}", f"--set= env.TOKEN ={SECRET}", f"env={{TOKEN: {SECRET}}}"]
    assert without_values(["epochal", "submit", "-s", *typed, "train.epochs=3", "environment=x"]) == (
        "epochal", "submit", "-s", "env.TOKEN=***", "-senv.TOKEN=***", "--set= env.TOKEN =***", "env=***",
        "train.epochs=3", "environment=x",
    )  # fmt: skip
