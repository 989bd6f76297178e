"""`epochal doctor` on this machine, and on homes with something left in them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from epochal.agent.reconcile import foreground_name
from epochal.cli.main import main
from epochal.doctor import diagnose, installation
from epochal.doctor.check import ok
from epochal.doctor.installation import Loaded
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import JobState
from epochal.settings import home
from epochal.tracking.desired_run import DesiredRun
from epochal.tracking.sync_state import SyncState, fingerprint

ODD = b'{"job_id": "broken", "experiment": "e", "name": "n", "params": 5}'
"""What is loaded, and fails only where it is used."""


@pytest.fixture
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing torch, Ray and MLflow takes seconds; one test does it."""
    monkeypatch.setattr(installation, "load", lambda: Loaded({"torch": ""}))


def doctor(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, dict[str, Any]]]:
    code = main(["doctor", "-o", "json"])
    return code, {check["name"]: check for check in json.loads(capsys.readouterr().out)}


@pytest.mark.usefixtures("_fast")
def test_a_failure_is_the_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(installation, "load", lambda: Loaded({"torch": "OSError: libcudart.so.13"}))
    assert main(["doctor"]) == 1
    shown = capsys.readouterr()
    assert "libcudart.so.13" in shown.out
    assert "fail imports: install them again" in shown.err


@pytest.mark.usefixtures("_fast")
def test_home_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EPOCHAL_HOME", str(tmp_path / "file"))
    code, checks = doctor(capsys)
    assert code == 1
    assert checks["home"]["status"] == "fail"
    assert "EPOCHAL_HOME" in checks["home"]["advice"]


@pytest.mark.usefixtures("_fast")
def test_what_was_left_behind(capsys: pytest.CaptureFixture[str], epochal_home: Path) -> None:
    with Ledger.open(home().ledger_url) as ledger:
        lost, kept = (ledger.submit({"version": 1}, name="digits") for _ in range(2))
        assert ledger.lease("gone", 0, lost.id)
        ledger.request_pause(kept.id)
    folder = home().storage / "jobs" / lost.id
    DesiredRun(job_id=lost.id, experiment="digits", name="digits").save(folder)
    (home().storage / "jobs" / "not-a-job").mkdir()
    code, checks = doctor(capsys)
    assert code == 0
    assert checks["ledger (run)"]["found"] == "1 STARTING, 1 PAUSED"
    assert checks["leases"]["status"] == "warn"
    assert lost.id in checks["leases"]["found"]
    assert checks["paused jobs"]["advice"].startswith(f"`epochal run --resume {kept.id}`")
    assert checks["tracking"]["found"] == f"not all of {lost.id} is in MLflow yet"
    with Ledger.open(home().ledger_url) as ledger:
        assert ledger.job(lost.id).state is JobState.STARTING, "the doctor only looks"
    SyncState(settled=fingerprint(folder)).save(folder)
    assert doctor(capsys)[1]["tracking"]["status"] == "ok"


@pytest.mark.usefixtures("_fast")
def test_lease_of_a_process_that_died_or_lives(capsys: pytest.CaptureFixture[str]) -> None:
    with Ledger.open(home().ledger_url) as ledger:
        lost, alive = (ledger.submit({"version": 1}, name=name) for name in ("digits", "wine"))
        ledger.lease(f"{foreground_name()}0", 60, lost.id)
        ledger.lease(foreground_name(), 60, alive.id)
    found = doctor(capsys)[1]["leases"]["found"]
    assert lost.id in found
    assert alive.id not in found


@pytest.mark.usefixtures("_fast")
def test_ledger_that_is_damaged(capsys: pytest.CaptureFixture[str], epochal_home: Path) -> None:
    epochal_home.mkdir()
    (epochal_home / "ledger.db").write_text("no database " * 100)
    code, checks = doctor(capsys)
    assert code == 1
    assert "not a usable database" in checks["ledger (run)"]["found"]


@pytest.mark.usefixtures("_fast")
@pytest.mark.parametrize(
    "garbage", [b"{", b"\xff\xfe", b'"text"', b"[1]", b"null", b'{"job_id": 1}', b'{"dataset": 1}', ODD]
)
def test_job_folders_that_are_damaged(garbage: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    sound = home().job("sound")
    DesiredRun(job_id="sound", experiment="digits", name="digits").save(sound)
    broken = [home().job("broken"), home().job("no-file"), home().served.job("served")]
    for folder in broken:
        folder.mkdir(parents=True)
    (broken[1] / "run.json").mkdir()
    for folder in (broken[0], broken[2]):
        (folder / "run.json").write_bytes(garbage)
    (sound / "sync_state.json").write_text("[1]")
    code, checks = doctor(capsys)
    assert code == 0
    assert checks["job folders"]["status"] == "warn"
    assert all(f"{folder}: " in checks["job folders"]["found"] for folder in broken)
    assert checks["tracking"]["found"] == "not all of sound is in MLflow yet"


@pytest.mark.usefixtures("_fast")
def test_stray_ray_token(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    os.close(os.open(tmp_path / ".ray" / "auth_token", os.O_CREAT, 0o644))
    assert doctor(capsys)[1]["ray token"]["status"] == "warn"


@pytest.mark.usefixtures("_fast")
def test_a_look_that_is_not_allowed_does_not_end_the_others(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied", "/proc/meminfo")

    monkeypatch.setattr(diagnose, "_hardware", refuse)
    code, checks = doctor(capsys)
    assert code == 1
    assert "Permission denied" in checks["hardware"]["found"]
    assert {"python", "clock", "tracking"} <= set(checks)


@pytest.mark.usefixtures("_fast")
def test_table_shows_advice_apart(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnose, "_hardware", lambda _: iter([ok("cpus", "64 usable")]))
    assert main(["doctor"]) == 0
    shown = capsys.readouterr()
    header, *lines = shown.out.splitlines()
    assert header.split() == ["STATUS", "NAME", "FOUND"]
    assert "ok      cpus                64 usable" in lines
    assert "64 usable" not in shown.err
