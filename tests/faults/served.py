"""A server on SQLite and agents, each a process of its own, and a job whose steps last while a test wants them to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
from foreground import SLOW_JOB, Curve, history, last_step, run_status, title
from stack import WORKER, Process

from epochal.client.client import Client
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import JobState, Outcome, Reason
from epochal.ledger.values import Attempt, Job, Role
from epochal.settings import Home
from epochal.spec.load import load_spec
from epochal.urls import free_port
from polling import until
from unbroken import unbroken_curve

HERE = Path(__file__).parent
STEPS = 600


def slow_job_unbroken(folder: Path, *changes: str) -> Curve:
    """The loss of the slow job, at full speed and left alone."""
    return unbroken_curve(folder, load_spec(SLOW_JOB, changes).spec)


class Served:
    """Use it as a context manager. ``within`` and ``host`` put the server elsewhere; agents are started by the test."""

    def __init__(
        self, folder: Path, tracking_uri: str = "", within: Sequence[str] = (), host: str = "127.0.0.1"
    ) -> None:
        self.folder = folder
        self.root = folder / "home"
        self.home = Home(self.root).served
        self.home.root.mkdir(parents=True, exist_ok=True)
        self.tracking_uri = tracking_uri or self.home.tracking_uri
        self.runs = self.tracking_uri
        self.url = f"http://{host}:{free_port()}"
        self.slow = folder / "slow"
        self.environ = {"EPOCHAL_HOME": str(self.root), "MLFLOW_TRACKING_URI": self.tracking_uri}
        self._agents: list[Process] = []
        options = ("--host", host, "--port", self.url.rpartition(":")[2], "--token-file", str(folder / "admin-token"))
        self.server = Process("server", folder, options, self.environ, within)

    def __enter__(self) -> Served:
        self.ledger = Ledger.open(self.home.ledger_url)
        self.admin_token = self.ledger.create_token("tester", Role.ADMIN)[1]
        self.server.start()
        self.until(lambda: self.url in self.server.log, "the server says where it is")
        self.client = Client(self.url, self.admin_token)
        return self

    def __exit__(self, *error: object) -> None:
        for agent in reversed(self._agents):
            agent.stop()
        self.server.stop()
        self.ledger.close()

    def agent(self, name: str, within: Sequence[str] = (), *options: str, **environ: str) -> Process:
        """Another agent, started."""
        told = ("--server", self.url, "--token-file", str(self.token_file(name)), "--name", name, *options)
        agent = Process("agent", self.folder, told, {**self.environ, **environ}, within, log=name)
        self._agents.append(agent)
        agent.start()
        return agent

    def token_file(self, name: str) -> Path:
        """With a token for the agent of that name."""
        self.agent_token = self.ledger.create_token(name, Role.AGENT)[1]
        path = self.folder / f"{name}-token"
        _keep(path, self.agent_token)
        return path

    def until_alive(self, name: str) -> None:
        self.until(lambda: any(one.alive and one.name == name for one in self.ledger.agents()), f"{name} is there")

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 120.0) -> Any:
        """Wait for it; what it was. Where it does not come, the end of every log says why."""
        try:
            return until(condition, what, seconds)
        except AssertionError as error:
            logs = "\n".join(process.log[-5000:] for process in (self.server, *self._agents))
            raise AssertionError(f"{error}\n{logs}") from None

    def until_ended(self, job_id: str, seconds: float = 240.0) -> Job:
        return self.until(
            lambda: (now := self.ledger.job(job_id)).state.is_terminal and now, f"the end of {job_id}", seconds
        )

    def submitted(self, *changes: str) -> str:
        """The slow job's id; it is slow while ``self.slow`` is there."""
        return self.client.submit(SLOW_JOB, (f"env.SLOW_WHILE={self.slow}", *changes)).id

    def commanded(self, job: str, *options: str, within: Sequence[str] = ()) -> str:
        """The id of what `epochal submit` has submitted, as a user with a token in the environment does it."""
        command = [*within, sys.executable, "-m", "epochal.cli.main", "submit", job, "--server", self.url, "-o", "json"]
        environ = {**os.environ, "EPOCHAL_TOKEN": self.admin_token, "EPOCHAL_HOME": str(self.folder / "users-home")}
        told = subprocess.run(
            [*command, *options], env=environ, capture_output=True, text=True, check=False, timeout=120
        )
        assert told.returncode == 0, told.stderr
        answer = json.loads(told.stdout)
        return str((answer[0] if isinstance(answer, list) else answer)["id"])

    def until_step(self, job_id: str, step: int, seconds: float = 120.0) -> None:
        self.until(lambda: last_step(self.home.job(job_id)) >= step, f"step {step} of {job_id}", seconds)

    def run_agrees(self, job: Job, curve: Curve) -> None:
        """MLflow has the job's curve, and nothing twice, and says that it has ended well."""
        run_id = self.until(lambda: self.ledger.job(job.id).run_id, "the run is told")
        run = {"tracking_uri": self.runs, "run_id": run_id}
        self.until(lambda: run_status(run) == "FINISHED", "the run is closed")
        assert history(self.runs, run_id) == curve


def succeeded(job: Job) -> bool:
    return (job.state, job.reason) == (JobState.SUCCEEDED, Reason.COMPLETED)


def endings(attempts: Sequence[Attempt]) -> list[tuple[Outcome | None, Reason | None]]:
    return [(one.outcome, one.reason) for one in attempts]


def follow_each_other(attempts: Sequence[Attempt]) -> bool:
    """Whether no two of them were live at once."""
    ends = [one.ended_at or float("inf") for one in attempts]
    return all(end <= after.leased_at for end, after in zip(ends, attempts[1:], strict=False))


def ranks_of(agent: Process, job_id: str) -> dict[int, psutil.Process]:
    """The agent's processes of a job's ranks."""
    found = {}
    for process in agent.family():
        name = title(process)
        if f"epochal:{job_id}:" in name and (rank := WORKER.search(name)):
            found[int(rank[1])] = process
    return found


def seconds_until(condition: Callable[[], Any], limit: float) -> float:
    """How long it took; ``limit`` where it did not come about."""
    begun = time.monotonic()
    while not condition() and time.monotonic() - begun < limit:
        time.sleep(0.02)
    return time.monotonic() - begun


def _keep(path: Path, secret: str) -> None:
    path.write_text(secret)
    path.chmod(0o600)
