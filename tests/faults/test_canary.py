"""Secrets reach those they are for, and turn up nowhere else: in no file, process list, MLflow field or answer."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from foreground import run_status, title
from served import HERE, Served, succeeded
from stack import Process

from epochal.tracking.desired_run import DesiredRun
from epochal.tracking.model import FORMAT_TAG
from epochal.tracking.server import TrackingServer
from epochal.urls import free_port

JOB = HERE / "secret_job" / "job.yaml"
TOKEN_FILES = {"admin-token", "agent-1-token", "ray_token"}
CHUNK = 1 << 20


@dataclass
class Watched:
    """A stack of its own in ``folder``, whose agent has the secret of the job."""

    folder: Path
    served: Served
    agent: Process
    canary: str


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    uri = f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}"
    canary = f"canary-{uuid.uuid4().hex}"
    with (
        TrackingServer(uri, port=free_port(), log=folder / "mlflow.log") as mlflow,
        Served(folder, mlflow.url) as served,
    ):
        yield Watched(folder, served, served.agent("agent-1", (), "--warm", "0", CANARY_SECRET=canary), canary)


def files_with(secrets: Mapping[str, str], *folders: Path) -> list[str]:
    """``name in path`` for every file below ``folders`` that holds a secret."""
    return [
        f"{name} in {path}"
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and path.name not in TOKEN_FILES
        for name in _held(path, secrets)
    ]


def _held(path: Path, secrets: Mapping[str, str]) -> list[str]:
    longest = max(len(secret) for secret in secrets.values())
    found, tail = set(), b""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            text = tail + chunk
            found |= {name for name, secret in secrets.items() if secret.encode() in text}
            tail = text[-longest:]
    return sorted(found)


def commands_with(secrets: Mapping[str, str]) -> list[str]:
    shown = [title(process) for process in psutil.process_iter()]
    return [f"{name} in {command[:80]}" for command in shown for name, secret in secrets.items() if secret in command]


def answers_with(served: Served, secrets: Mapping[str, str], job_id: str) -> list[str]:
    """Every answer of the server to an administrator, as to what leaks in it."""
    job = f"/api/v1/jobs/{job_id}"
    documents = ["/jobs", "/queue", "/agents", "/overview", "/whoami", "/tokens", "/quotas"]
    paths = ["/", "/metrics", "/healthz", "/readyz", "/openapi.json", job, *(f"/api/v1{path}" for path in documents)]
    paths += [f"{job}/{part}" for part in ("attempts", "events", "logs", "why")]
    found = []
    with httpx.Client(base_url=served.url, headers={"Authorization": f"Bearer {served.admin_token}"}) as client:
        for path in paths:
            answer = client.get(path)
            assert answer.status_code == 200 or path == "/openapi.json", (path, answer.text)
            told = f"{answer.headers} {answer.text}"
            found += [f"{name} in GET {path}" for name, secret in secrets.items() if secret in told]
        refused = client.get("/api/v1/jobs/none-such")
        found += [f"{name} in a refusal" for name, secret in secrets.items() if secret in refused.text]
    return found


def ray_folders(agent: Process) -> list[Path]:
    """Where the agent's private Ray keeps its sessions and logs."""
    told = (word for process in agent.family() for word in title(process).split())
    return sorted({Path(word.partition("=")[2]) for word in told if word.startswith("--session-dir=")})


def test_secrets_turn_up_nowhere(watched: Watched) -> None:
    served = watched.served
    secrets = {
        "the admin's token": served.admin_token, "the agent's token": served.agent_token, "a secret": watched.canary
    }  # fmt: skip
    job_id = served.commanded(str(JOB))
    served.until_step(job_id, 1)
    secrets["Ray's token"] = served.home.ray_token.read_text().strip()
    leaks = commands_with(secrets)
    job = served.until_ended(job_id)
    assert succeeded(job), job
    run_id = served.until(lambda: served.ledger.job(job_id).run_id, "its run")
    run = {"tracking_uri": served.tracking_uri, "run_id": run_id}
    served.until(lambda: run_status(run) == "FINISHED", "the run is closed")

    assert DesiredRun.load(served.home.job(job_id)).tags[FORMAT_TAG] == "pt2", "the model is packaged, by its agent"

    digest = hashlib.sha256(watched.canary.encode()).hexdigest()
    logs = list(served.home.job(job_id).glob("logs/attempt-1/rank-*.log"))
    assert [f"secret {digest}" in log.read_text() for log in logs] == [True, True], "every worker has the secret"
    assert [log.read_text().count("***") for log in logs] == [4, 4], "and prints it"
    assert "CANARY_SECRET" in json.dumps(dict(served.ledger.full_job(job_id).spec)), "its name is no secret"

    sessions = ray_folders(watched.agent)
    assert sessions
    leaks += commands_with(secrets) + answers_with(served, secrets, job_id) + files_with(secrets, *sessions)
    leaks += files_with(secrets, watched.folder)
    assert leaks == []
    assert files_with({"the digest": digest}, watched.folder), "what is in a log is found"


@pytest.mark.slow
def test_a_secret_in_an_exception_turns_up_nowhere(watched: Watched) -> None:
    served, secrets = watched.served, {"a secret": watched.canary}
    job_id = served.commanded(str(JOB), "--set", "env.RAISES=please")
    job = served.until_ended(job_id)
    assert "No such file or directory: '/nowhere/***'" in job.message
    run_id = served.until(lambda: served.ledger.job(job_id).run_id, "its run")
    run = {"tracking_uri": served.tracking_uri, "run_id": run_id}
    served.until(lambda: run_status(run) == "FAILED", "the run is closed")
    assert "/nowhere/***" in (served.home.job(job_id) / "artifacts/failure.txt").read_text()
    leaks = answers_with(served, secrets, job_id) + files_with(secrets, watched.folder, *ray_folders(watched.agent))
    assert leaks == []
