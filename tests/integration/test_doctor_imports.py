"""`epochal doctor` on this very machine: everything is imported, each in a child that may crash."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from epochal.cli.main import main
from epochal.doctor import installation


@pytest.mark.slow
def test_this_machine_is_fit_and_nothing_is_changed(capsys: pytest.CaptureFixture[str], epochal_home: Path) -> None:
    code = main(["doctor", "-o", "json"])
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    failed = {name for name, check in checks.items() if check["status"] == "fail"}
    assert code == int(bool(failed))
    assert failed <= {"memory", "disk (home)", "disk (temporary)", "open files"}, "what a small machine may lack"
    for name in (
        "python",
        "packages (client)",
        "packages (cluster)",
        "imports",
        "home",
        "loopback",
        "clock",
        "ledger (run)",
    ):
        assert checks[name]["status"] == "ok", checks[name]
    assert not epochal_home.exists()


def test_import_is_tried_in_a_child_that_may_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('libfoo.so is missing\\nand more')")
    (tmp_path / "crashing.py").write_text("import os\nos.abort()")
    (tmp_path / "chatty.py").write_text("print('[1, 2, 3]', 'hello')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    loaded = installation.load(("json", "chatty", "broken", "absent", "crashing", "csv"))
    assert loaded.errors == {
        "json": "",
        "chatty": "",
        "broken": "RuntimeError: libfoo.so is missing",
        "absent": "ModuleNotFoundError: No module named 'absent'",
        "crashing": "crashed",
        "csv": "not reached",
    }


def test_import_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hanging.py").write_text("import time\ntime.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(installation, "IMPORT_SECONDS", 6.0)  # in which a Python starts, on a busy machine too
    assert installation.load(("json", "hanging", "csv")).errors == {
        "json": "",
        "hanging": "not done after the 6 s that all have together",
        "csv": "not reached",
    }


def test_what_libraries_print_while_they_are_imported_may_be_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = b'["a", null]\n\xff\n["a", ""]\n["b", null]\n\xe2\x82'

    def late(command: list[str], timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout, printed)

    monkeypatch.setattr("subprocess.run", lambda *_, **__: subprocess.CompletedProcess([], 0, printed))
    assert installation.load(("a", "b")).errors == {"a": "", "b": "crashed"}
    monkeypatch.setattr("subprocess.run", late)
    assert "120 s" in installation.load(("a", "b")).errors["b"]
