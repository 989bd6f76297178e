"""`epochal runs` and `epochal ui` on real records."""

from __future__ import annotations

import json
import math
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml

from epochal.cli.main import main
from epochal.doctor import ledger
from epochal.settings import home, tracking_uri
from epochal.sweeps.trials import Measured, Trial, TrialState
from epochal.tracking.connection import connect, sqlite_path
from epochal.tracking.desired_run import DesiredRun, flatten
from epochal.tracking.metric_spool import MetricSpool
from epochal.tracking.server import TrackingServer
from epochal.tracking.syncer import sync
from epochal.tracking.tracker import pending_folders
from epochal.tracking.trial_runs import TrialRuns
from epochal.urls import free_port

TRAINING = "workflowType=machine_learning"


def make_run(number: int, name: str, lr: float, status: str = "FINISHED") -> Path:
    folder = home().storage / "jobs" / f"job-{number}"
    spec = {"train": {"optimizer": {"lr": lr}, "epochs": 2}, "objective": {"metric": "val/accuracy", "mode": "max"}}
    record = DesiredRun(
        job_id=folder.name,
        experiment="digits",
        name=name,
        params=flatten(spec),
        tags={"team": "vision"},
        start_time=1_700_000_000.0 + number,
    )
    record.changed(status=status, reason="COMPLETED", end_time=1_700_000_000.0 + number + 90).save(folder)
    writer = MetricSpool(folder, "attempt-1-rank-0")
    for step in range(20):
        writer.log(step, {"train/loss": number / (step + 1), "system/n/cpu_percent": 5.0})
    for step, accuracy in ((9, 0.5 + number / 10), (19, 0.4 + number / 10)):
        writer.log(step, {"val/accuracy": accuracy})
    writer.close()
    return folder


def make_runs(migrated_mlflow_db: Path) -> dict[str, str]:
    path = sqlite_path(tracking_uri())
    path.parent.mkdir(parents=True)
    path.write_bytes(migrated_mlflow_db.read_bytes())
    folders = [make_run(1, "cnn", 0.1), make_run(2, "cnn", 0.2), make_run(3, "mlp", 0.2, "FAILED")]
    return {folder.name: sync(tracking_uri(), folder).run_id for folder in folders}


@pytest.fixture(scope="module")
def home_with_runs(tmp_path_factory: pytest.TempPathFactory, migrated_mlflow_db: Path) -> tuple[Path, dict[str, str]]:
    path = tmp_path_factory.mktemp("runs") / "epochal"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPOCHAL_HOME", str(path))
        return path, make_runs(migrated_mlflow_db)


@pytest.fixture
def runs(
    home_with_runs: tuple[Path, dict[str, str]], epochal_home: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """Three runs by the id of their job, in a home that tests share and only read."""
    path, runs = home_with_runs
    monkeypatch.setenv("EPOCHAL_HOME", str(path))
    return runs


@pytest.fixture
def own_runs(epochal_home: Path, migrated_mlflow_db: Path) -> dict[str, str]:
    """The same in a home of this test, which may change it."""
    return make_runs(migrated_mlflow_db)


def output(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    capsys.readouterr()
    assert main(["runs", *arguments]) == code
    captured = capsys.readouterr()
    return captured.out if code in (0, 5) else captured.err


def test_list_shows_the_newest_first(runs: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    lines = output(capsys, "list").splitlines()
    assert lines[0].split() == ["ID", "NAME", "STATUS", "REASON", "STARTED", "DURATION", "VAL/ACCURACY", "TRAIN/LOSS"]
    assert [line.split()[1:4] for line in lines[1:]] == [
        ["mlp", "FAILED", "COMPLETED"],
        ["cnn", "FINISHED", "COMPLETED"],
        ["cnn", "FINISHED", "COMPLETED"],
    ]
    assert lines[1].split()[-3:] == ["1m30s", "0.7", "0.15"]


def test_list_in_every_format_and_with_every_filter(runs: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    listed = json.loads(output(capsys, "list", "-o", "json"))
    assert [entry["id"] for entry in listed] == list(reversed(runs.values()))
    assert listed[0]["params"]["train.optimizer.lr"] == "0.2"
    assert yaml.safe_load(output(capsys, "list", "-o", "yaml")) == listed
    assert output(capsys, "list", "-o", "name").split() == [entry["id"][:8] for entry in listed]
    assert output(capsys, "list", "-o", "name", "--status", "failed").split() == [runs["job-3"][:8]]
    assert output(capsys, "list", "-o", "name", "--job", "job-1").split() == [runs["job-1"][:8]]
    assert len(output(capsys, "list", "-o", "name", "--experiment", "digits", "--limit", "2").split()) == 2
    assert "did you mean 'digits'" in output(capsys, "list", "--experiment", "digit", code=3)


@pytest.mark.parametrize(
    ("limit", "said"), [("2", "the newest 2 are shown, and there are more: --limit 20\n"), ("3", "")]
)
def test_a_list_that_is_cut_off_says_so(
    limit: str, said: str, runs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", "list", "-o", "json", "--limit", limit]) == 0
    told = capsys.readouterr()
    assert (len(json.loads(told.out)), told.err) == (int(limit), said)


METRICS_LEFT_OUT = {
    "list": "2 of 3 metrics are shown; the rest: `epochal runs show RUN --all`, or -o json",
    "list -o name": "",
    "list -o json": "",
    "show job-1": "2 of 3 metrics are shown; the rest: --all",
    "show job-1 --all": "",
    "compare job-1 job-3": "3 of 4 metrics are shown; the rest: those of machines, with -o json",
}


def test_metrics_that_are_left_out_are_counted(runs: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    for typed, said in METRICS_LEFT_OUT.items():
        assert main(["runs", *typed.split()]) == 0
        assert [line for line in capsys.readouterr().err.splitlines() if "are shown" in line] == [said] * bool(said)


def test_show_finds_a_run_by_id_prefix_job_and_name(runs: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    for name, job in ((runs["job-1"], "job-1"), (runs["job-1"][:12], "job-1"), ("job-2", "job-2"), ("cnn", "job-2")):
        assert json.loads(output(capsys, "show", name, "-o", "json"))["job"] == job
    assert "3 runs begin with 'job'" in output(capsys, "show", "job", code=2)
    assert "did you mean 'cnn'" in output(capsys, "show", "cmn", code=3)
    assert "no run is named" in output(capsys, "show", "'; DROP TABLE runs", code=3)


def test_show_has_metrics_and_the_page_of_the_curves(runs: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    shown = output(capsys, "show", "job-1")
    assert "tags.team" in shown
    assert "params.train.optimizer.lr" in shown
    rows = {line.split()[0]: line.split()[1:] for line in shown.partition("METRIC")[2].splitlines()[1:]}
    assert rows["val/accuracy"] == ["0.5", "0.5", "19", "0.6", "9"]
    assert set(rows) == {"val/accuracy", "train/loss"}
    everything = json.loads(output(capsys, "show", "job-1", "--all", "-o", "json"))
    assert {entry["metric"] for entry in everything["extents"]} == {*rows, "system/n/cpu_percent"}
    assert everything["page"] == f"http://127.0.0.1:5000/#/experiments/1/runs/{runs['job-1']}?{TRAINING}"


def test_compare_shows_only_what_differs(runs: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    table = output(capsys, "compare", "job-1", "job-3")
    rows = {line.split("  ")[0]: line.split()[-2:] for line in table.splitlines()}
    assert rows["best val/accuracy"] == ["0.6", "0.8"]
    assert rows["status"] == ["FINISHED", "FAILED"]
    assert rows["train.optimizer.lr"] == ["0.1", "0.2"]
    assert "train.epochs" not in table
    compared = json.loads(output(capsys, "compare", "job-1", "job-2", "-o", "json"))
    assert compared["metrics"]["val/accuracy"] == pytest.approx({runs["job-1"]: 0.5, runs["job-2"]: 0.6})
    assert list(compared["params"]) == ["train.optimizer.lr"]
    ids = "%2C".join(f"%22{runs[job]}%22" for job in ("job-1", "job-2"))
    query = f"runs=%5B{ids}%5D&experiments=%5B%221%22%5D&{TRAINING}"
    assert compared["page"] == f"http://127.0.0.1:5000/#/compare-runs?{query}"
    assert output(capsys, "compare", "job-1", "job-2", "-o", "name").split() == [runs["job-1"], runs["job-2"]]


def test_compare_has_a_sweeps_trials_the_best_first(
    own_runs: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = make_run(7, "search", 0.1)
    trials = TrialRuns(folder)
    for number, value in enumerate((0.5, 0.9, math.nan, 0.7)):
        state = TrialState.FAILED if number == 3 else TrialState.COMPLETED
        trials.record(Trial(number, {"train.optimizer.lr": 0.1 * number, "x": 1}, state, 2.0, (Measured(2.0, value),)))
    assert len(output(capsys, "list", "-o", "name").split()) == 4, "a sweep has one run in the list"
    lines = output(capsys, "compare", "--sweep", "job-7").splitlines()
    assert lines[0].split() == ["ID", "TRIAL", "STATE", "VAL/ACCURACY", "LR", "REASON", "DURATION"]
    assert [line.split()[1:4] for line in lines[1:]] == [
        ["1", "COMPLETED", "0.9"], ["0", "COMPLETED", "0.5"], ["2", "COMPLETED", "nan"], ["3", "FAILED", "0.7"],
    ]  # fmt: skip
    page = tmp_path / "compared.html"
    compared = json.loads(output(capsys, "compare", "--sweep", "job-7", "-o", "json", "--html", str(page)))
    assert list(compared["params"]) == ["train.optimizer.lr"]
    assert len(compared["runs"]) == 4
    assert compared["page"].count("%22%2C%22") == 3
    assert "<td>COMPLETED</td>" in page.read_text(encoding="utf-8")
    output(capsys, "compare", "job-1", "job-2", "--html", str(page))
    assert "train.optimizer.lr" in page.read_text(encoding="utf-8")
    assert "has no trials" in output(capsys, "compare", "--sweep", "job-1", code=2)
    assert "or one sweep" in output(capsys, "compare", code=2)
    assert "or one sweep" in output(capsys, "compare", "job-1", "--sweep", "job-7", code=2)


def test_sync_sends_what_is_left_and_says_what_stays(
    own_runs: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert output(capsys, "sync") == ""
    make_run(4, "late", 0.3)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    stuck = json.loads(output(capsys, "sync", "-o", "json", code=5))
    assert [(row["job"], row["sent"]) for row in stuck] == [("job-4", False)]
    assert "the run" in stuck[0]["left"]
    assert "127.0.0.1" in stuck[0]["problem"]
    (home().storage / "jobs/job-4/sync_state.json").unlink()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert json.loads(output(capsys, "sync", "-o", "json"))[0]["sent"]
    assert list(pending_folders(home().storage)) == []


def test_of_a_run_that_was_deleted_sync_and_doctor_say_so_until_it_is_restored(
    own_runs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, run_id, client = home().storage / "jobs/job-1", own_runs["job-1"], connect(tracking_uri())
    client.delete_run(run_id)
    writer = MetricSpool(folder, "attempt-2-rank-0")
    writer.log(20, {"train/loss": 0.01})
    writer.close()
    (row,) = json.loads(output(capsys, "sync", "-o", "json", code=5))
    assert row["left"].endswith("bytes of metrics")
    assert f"mlflow runs restore --run-id {run_id}" in row["problem"]
    assert "MLflow does not have" not in capsys.readouterr().err
    found = [check.found for check in ledger.look(home()) if check.name == "tracking"]
    assert found == [f"MLflow lacks something of 1 job: job-1: {row['problem']}"]
    client.restore_run(run_id)
    assert json.loads(output(capsys, "sync", "-o", "json"))[0]["sent"]
    assert [check.found for check in ledger.look(home()) if check.name == "tracking"] == ["MLflow has everything"]
    assert len(client.get_metric_history(run_id, "train/loss")) == 21


def test_reading_sends_what_is_left_first(own_runs: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    make_run(5, "late", 0.3)
    assert len(output(capsys, "list", "-o", "name").split()) == 4


def test_a_fresh_home_has_no_runs(epochal_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert output(capsys, "list") == ""
    assert not epochal_home.exists()


def test_a_dead_server_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert main(["runs", "list"]) == 5
    assert "cannot be reached" in capsys.readouterr().err


def test_ui_serves_this_home_until_ctrl_c(runs: dict[str, str]) -> None:
    port = free_port()
    command = [sys.executable, "-c", "import sys; from epochal.cli.main import main; sys.exit(main())"]
    with subprocess.Popen(
        [*command, "ui", "--port", str(port)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            url = f"http://127.0.0.1:{port}"
            said = process.stdout.readline().strip()
            assert said == f"{url}/#/experiments/1/runs?{TRAINING}"
            with urllib.request.urlopen(url, timeout=10) as page:
                assert b"MLflow" in page.read()
            run = connect(url).get_run(runs["job-1"])
            assert run.data.tags["epochal.job_id"] == "job-1"
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
        finally:
            process.terminate()  # where it has not ended: else leaving the block would wait for ever
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=2)


def test_ctrl_c_while_it_starts_leaves_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def interrupted(server: TrackingServer) -> bool:
        assert server._process is not None
        started.append(server._process)
        raise KeyboardInterrupt

    monkeypatch.setattr(TrackingServer, "_answers", interrupted)
    with pytest.raises(KeyboardInterrupt):
        TrackingServer(f"sqlite:///{tmp_path / 'mlflow.db'}", port=free_port()).start()
    try:
        assert started[0].poll() is not None
    finally:
        started[0].kill()
        started[0].wait()


def test_ui_refuses_what_it_should(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["ui", "--host", "0.0.0.0"]) == 2
    assert "there is no password" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["ui", "--port", str(taken.getsockname()[1])]) == 4
    assert "cannot listen" in capsys.readouterr().err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere:5000")
    assert main(["ui"]) == 0
    assert capsys.readouterr().out == "http://somewhere:5000/#/experiments?workflowType=machine_learning\n"
