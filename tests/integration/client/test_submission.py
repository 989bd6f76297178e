"""What is sent with a job: the resolved spec, its code, and where both come from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import running_server
from epochal.client.submission import MAX_DIFF_BYTES, Submission, load, prepare
from epochal.errors import CodeError, SpecError
from epochal.settings import home
from epochal.spec.job import JobSpec

FOLDER = Path(__file__).parents[3] / "jobs"
JOBS = sorted(FOLDER.glob("*.yaml"))
SPEC = {**running_server.SPEC, "name": "small"}
HEAVY = ("ray", "torch", "mlflow", "sqlalchemy", "alembic", "numpy", "psutil", "fastapi", "pandas")
PROBE = f"""
import sys
from epochal.client import Client
from epochal.client.remote_ledger import RemoteLedger
from epochal.client.submission import load, prepare
from epochal.settings import home
prepare(load(sys.argv[1]), home())
print(*sorted(set(sys.modules) & set({HEAVY!r})))
"""


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], capture_output=True, check=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A spec that ships the code beside it, in a repository with one change since its commit."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "job.yaml").write_text(
        "version: 1\nname: own\nmodel: {name: mlp}\ndata: {name: digits}\ntrain: {epochs: 1}\ncode: {dir: .}\n"
    )
    (folder / "net.py").write_text("old = 1\n")
    git(folder, "init")
    git(folder, "add", "-A")
    git(folder, "commit", "-m", "first")
    (folder / "net.py").write_text("new = 1\n")
    (folder / ".env").write_text("API=hunter2\n")
    return folder


def submitted(project: Path, *command: str) -> Submission:
    return prepare(load(project / "job.yaml"), home(), command)


def test_a_mapping_is_a_spec_too() -> None:
    loaded = load(SPEC, ["train.epochs=3"])
    assert (loaded.spec.train.epochs, loaded.folder) == (3, Path.cwd())
    assert load(loaded) is loaded
    with pytest.raises(SpecError, match=r"model\.name"):
        load({**SPEC, "model": {"name": "mpl"}})


@pytest.mark.parametrize("job", JOBS, ids=lambda path: path.stem)
def test_what_is_sent_is_the_whole_spec(job: Path) -> None:
    submission = prepare(load(job, ["train.seed=7"]), home(), [])
    assert JobSpec.model_validate(submission.document("k")["spec"]).model_dump(mode="json") == submission.spec
    assert submission.spec["train"]["seed"] == 7


SWEEP = {
    "objective": {"metric": "val/accuracy", "mode": "max"},
    "sweep": {"trials": 2, "space": {"train.seed": {"choice": [1, 2]}}},
}


def test_a_sweep_is_sent_with_its_space() -> None:
    submission = prepare(load({**SPEC, **SWEEP}), home(), [])
    assert submission.document("k")["spec"]["sweep"] == SWEEP["sweep"]


def test_defaults_are_filled_in_for_the_reader_and_not_sent() -> None:
    submission = prepare(load(SPEC), home(), [])
    assert submission.document("k")["spec"] == SPEC
    assert submission.name == "small"
    assert submission.spec["train"]["precision"] == "fp32"
    assert submission.spec["priority"] == 50
    assert (submission.package, submission.warnings) == (None, ())
    assert submission.document("k")["code"] is None


def test_code_and_its_repository_go_along(project: Path) -> None:
    submission = submitted(project, "epochal", "submit", "job.yaml")
    assert submission.package is not None
    assert submission.package.path.exists()
    assert set(submission.package.files) == {"job.yaml", "net.py"}
    assert submission.warnings == ("not shipped, since they look like secrets: .env",)
    assert submission.tags["epochal.code_digest"] == submission.package.digest
    assert submission.tags["mlflow.source.git.dirty"] == "true"
    assert "+new = 1" in submission.git_diff
    assert submission.environment["git"]["commit"] == submission.tags["mlflow.source.git.commit"]
    assert "diff" not in submission.environment["git"]
    assert submission.environment["packages"]["click"]


def test_no_secret_goes_along(project: Path) -> None:
    submission = submitted(project, "epochal", "submit", "job.yaml", "-s", "env.API=hunter2")
    document = submission.document("k")
    assert "hunter2" not in str(document)
    assert document["command"][-1] == "env.API=***"


def test_a_long_diff_is_cut_after_a_line(project: Path) -> None:
    (project / "net.py").write_text("a line of code\n" * 40_000)
    diff = submitted(project).git_diff
    assert len(diff.encode()) <= MAX_DIFF_BYTES
    assert len(diff) > MAX_DIFF_BYTES - 100
    assert diff.endswith("+a line of code\n")


def test_equal_submissions_are_equal(project: Path) -> None:
    assert submitted(project, "x").document("k") == submitted(project, "x").document("k")


def test_code_that_leads_out_of_its_folder_is_refused(project: Path) -> None:
    (project / "out").symlink_to("/etc/hostname")
    with pytest.raises(CodeError, match="leads out of"):
        submitted(project)


def test_the_client_needs_none_of_the_cluster_s_packages(project: Path) -> None:
    command = [sys.executable, "-c", PROBE, str(project / "job.yaml")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert (result.returncode, result.stdout) == (0, "\n"), result.stderr
