"""The promises of ``tests/conftest.py``, each shown to hold."""

from __future__ import annotations

import os
import random
import re
import runpy
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from code_base import ROOT

from epochal.settings import home
from polling import gone, until

FORGETS = """
import subprocess, sys

def test_that_forgets_its_process():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)  # forgotten"])
    open("forgotten", "w").write(str(child.pid))

def test_whose_process_lost_its_parent():
    subprocess.run(["sh", "-c", "sleep 300 >/dev/null 2>&1 & echo $! > orphan"])
"""
TIDY = """
import os, subprocess, sys

def test_that_looks_around():
    assert "someone's" not in os.environ.values()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"

def test_that_waits_for_its_process():
    subprocess.run([sys.executable, "-c", ""])
"""


def run_tests(folder: Path, source: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "tests" / "conftest.py", folder)
    (folder / "test_one.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), "test_one.py"]
    environ = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # they take longer than all else here
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)


def test_processes_left_running_fail_the_session_and_are_ended(tmp_path: Path) -> None:
    result = run_tests(tmp_path, FORGETS)
    forgotten, orphan = (int((tmp_path / name).read_text()) for name in ("forgotten", "orphan"))
    assert result.returncode != 0
    assert re.search(rf"pid {forgotten}: .*# forgotten", result.stdout)
    assert f"pid {orphan}: sleep 300" in result.stdout
    until(lambda: gone(forgotten) and gone(orphan), "their end")


def test_every_folder_has_its_place_in_the_order() -> None:
    tests = ROOT / "tests"
    order = runpy.run_path(str(tests / "conftest.py"))["ORDER"]
    assert {path.relative_to(tests).parts[0] for path in tests.rglob("test_*.py")} <= set(order)
    assert [part for part in order if not (tests / part).exists()] == []


def test_outside_network_is_refused() -> None:
    with pytest.raises(AssertionError, match=r"tests stay on this machine"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)


def test_loopback_is_allowed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()


def test_home_is_the_tests_own(tmp_path: Path, epochal_home: Path) -> None:
    assert home().root == epochal_home
    assert epochal_home.is_relative_to(tmp_path)
    assert not epochal_home.exists()
    assert Path.home() != Path(f"~{psutil.Process().username()}").expanduser()


def test_a_tidy_session_passes_and_its_environment_is_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EPOCHAL_RAY_ADDRESS", "RAY_ADDRESS", "MLFLOW_TRACKING_URI", "NO_COLOR", "WORLD_SIZE", "GIT_DIR"):
        monkeypatch.setenv(name, "someone's")
    result = run_tests(tmp_path, TIDY)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("again", [False, True])
def test_seeds_are_fixed(again: bool) -> None:
    assert random.random() == random.Random(0).random()
