"""The environment's manifest, and what may not be in it."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
from pathlib import Path

import pytest

from epochal.tracking import git as git_module
from epochal.tracking.environment import describe_environment, write_environment
from epochal.tracking.git import git_state
from epochal.tracking.software import package_versions


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    (folder / "secrets").mkdir(parents=True)
    git(folder, "init")
    for name in ("net.py", ".env", "prod.env", "server.pem", "my_secret.json", "secrets/key.txt", "tokenizer.py"):
        (folder / name).write_text("old\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-m", "first")
    git(folder, "remote", "add", "origin", "https://someone:hunter2@example.org/code.git")
    return folder


def test_packages_are_those_installed() -> None:
    versions = package_versions()
    for name in ("pydantic", "click", "pytest"):
        assert versions[name] == importlib.metadata.version(name)


def test_a_clean_repository(repository: Path) -> None:
    state = git_state(repository)
    assert state is not None
    assert state.commit == git(repository, "rev-parse", "HEAD")
    assert (state.branch, state.dirty, state.diff, state.untracked) == ("main", False, "", ())
    assert state.url == "https://example.org/code.git"
    assert state.tags["mlflow.source.git.dirty"] == "false"


def test_a_dirty_one_without_its_secrets(repository: Path) -> None:
    for path in repository.rglob("*"):
        if path.is_file() and ".git" not in path.parts:
            path.write_text(f"changed {path.name} hunter2\n")
    (repository / "new.py").write_text("x")
    state = git_state(repository)
    assert state is not None
    assert state.dirty
    assert state.untracked == ("new.py",)
    for number in range(102):
        (repository / f"o{number:03}.py").touch()
    many = git_state(repository)
    assert many is not None
    assert many.untracked[-2:] == ("o098.py", "... and 3 more")
    changed = {line.split(" b/")[1] for line in state.diff.splitlines() if line.startswith("diff --git")}
    assert changed == {"net.py", "tokenizer.py"}


def test_a_large_diff_is_cut(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_module, "MAX_DIFF_BYTES", 1000)
    (repository / "net.py").write_text("line\n" * 10_000)
    state = git_state(repository)
    assert state is not None
    assert state.truncated
    assert len(state.diff) == 1000


def test_no_repository_and_no_commit(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None
    git(tmp_path, "init")
    assert git_state(tmp_path) is None


def test_the_repository_cannot_make_us_run_programs(repository: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\n")
    trap.chmod(0o755)
    for setting in ("diff.external", "core.fsmonitor", "diff.trapped.textconv"):
        git(repository, "config", setting, str(trap))
    (repository / ".gitattributes").write_text("*.py diff=trapped\n")
    (repository / "net.py").write_text("changed\n")
    state = git_state(repository)
    assert state is not None
    assert "+changed" in state.diff
    assert not (tmp_path / "sprung").exists()


def test_artifacts_and_tags(repository: Path, tmp_path: Path) -> None:
    (repository / "net.py").write_text("new\n")
    tags = write_environment(tmp_path, repository, ["epochal", "run", "-s", "env.API=hunter2", "-senv.B=hunter2"])
    text = (tmp_path / "artifacts/environment.json").read_text()
    stored = json.loads(text)
    assert tags["mlflow.source.git.commit"] == stored["git"]["commit"]
    assert "+new" in (tmp_path / "artifacts/git.diff").read_text()
    assert stored["command"] == ["epochal", "run", "-s", "env.API=***", "-senv.B=***"]
    assert "hunter2" not in text
    assert stored["hardware"]["cores"] >= 1
    assert stored["hardware"]["memory_bytes"] > 2**20


def test_without_a_folder_of_code(tmp_path: Path) -> None:
    assert write_environment(tmp_path, None, ["epochal"]) == {}
    assert not (tmp_path / "artifacts/git.diff").exists()
    assert "git" not in describe_environment([])
