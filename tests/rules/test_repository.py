"""What holds for every file of the repository, and for its ready job specs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from code_base import ROOT, files

JOBS = sorted((ROOT / "jobs").rglob("*.yaml"))
SOMEONES_MACHINE = re.compile(r"(?<![\w.}~-])/(?:home/(?!ada\b)|root/|work/|Users/)[\w.]+")
"""Examples may have a home: Ada's."""
LAYOUT = ["platform", "jobs", "cluster", "dashboards", "helm", "tests"]
WORDS = ["demo", "setup", "check", "test-unit", "test", "test-all", "bench", "index", "clean"]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_path_of_someones_machine() -> None:
    found = {name(path): SOMEONES_MACHINE.findall(text) for path, text in texts().items()}
    assert not {path: paths for path, paths in found.items() if paths}


def texts() -> dict[Path, str]:
    """Every text file of the repository."""
    found = {}
    for path in files():
        with suppress(UnicodeDecodeError):
            found[path] = path.read_text(encoding="utf-8")
    return found


@pytest.mark.parametrize("folder", LAYOUT)
def test_top_level_folder_is_there(folder: str) -> None:
    assert any((ROOT / folder).rglob("*")), f"{folder}/ is part of the layout"


def test_makefile_knows_the_words() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert set(WORDS) <= set(re.findall(r"^([a-z-]+):.*##", makefile, re.MULTILINE))


def test_unit_tests_start_no_process() -> None:
    """``tests/unit/conftest.py`` sees those that are started some other way."""
    starts = re.compile(r"^\s*(?:import|from) (?:subprocess|multiprocessing)\b", re.MULTILINE)
    tests = [path for path in (ROOT / "tests" / "unit").rglob("test_*.py") if starts.search(path.read_text("utf-8"))]
    assert not [name(path) for path in tests], "they belong in tests/integration"


def test_ci_runs_the_makefiles_words() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text(encoding="utf-8").splitlines()[1:] == [
        "set -euo pipefail",
        'cd "$(dirname "$0")/.."',
        "make check test",
    ]


def test_constraints_pin_every_package_once() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^\s+]+", pin) for pin in pins)
    assert "torch==2.13.0" in pins
    assert len({pin.partition("==")[0].lower() for pin in pins}) == len(pins)
    assert not [pin for pin in pins if re.match(r"nvidia-(?!ml-py)|triton", pin)], "they come with torch for CUDA"


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_changes_of_two_branches_are_merged_by_themselves(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=ada", "-c", "user.email=ada@example.org")
        subprocess.run(["git", "-C", tmp_path, *who, *arguments], check=True, capture_output=True)

    def commit(text: str) -> None:
        (tmp_path / "CHANGELOG.md").write_text(text, encoding="utf-8")
        git("add", "-A")
        git("commit", "-m", "x")

    shutil.copy(ROOT / ".gitattributes", tmp_path)
    before = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    head, rest = before.split("## Unreleased\n\n", 1)
    mine, theirs = (f"- What {who} has changed,\n  as {who} says.\n" for who in ("one", "the other"))
    git("init", "-b", "main")
    commit(before)
    git("switch", "-c", "other")
    commit(f"{head}## Unreleased\n\n{theirs}{rest}")
    git("switch", "main")
    commit(f"{head}## Unreleased\n\n{mine}{rest}")
    git("merge", "other")
    assert (tmp_path / "CHANGELOG.md").read_text(encoding="utf-8") == f"{head}## Unreleased\n\n{mine}{theirs}{rest}"


@pytest.mark.parametrize("path", JOBS, ids=name)
def test_job_spec_loads(path: Path) -> None:
    from epochal.spec.load import load_spec

    load_spec(path)


def test_there_are_job_specs() -> None:
    assert ROOT / "jobs" / "quickstart.yaml" in JOBS
