"""The agent's threads outlive what nobody foresaw: without them it would look alive, and do nothing."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from epochal.agent import run_closer, service
from epochal.agent.job_runner import Agent, JobRunner
from epochal.agent.port import JobSource
from epochal.agent.retry_policy import Ending
from epochal.agent.run_closer import RunCloser
from epochal.agent.service import AgentService
from epochal.ledger.states import Reason
from epochal.settings import Home
from polling import until


class Source:
    """Fails once, then gives a lease, and at last none."""

    def __init__(self) -> None:
        self.asked = 0
        self.leave = lambda: None

    def lease(self, agent: str, ttl: float, *, wait: float, secret: str) -> Any:
        self.asked += 1
        if self.asked == 1:
            raise RuntimeError("nobody foresaw this")
        if self.asked == 2:
            return SimpleNamespace(job_id="one", epoch=1)
        self.leave()
        return None


def test_an_agent_leases_on_after_an_error_and_where_no_thread_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, cluster = Source(), SimpleNamespace(lost=lambda: "")
    agent: Any = Agent("agent", source, cluster, Home(tmp_path), "")  # type: ignore[arg-type]
    carries = AgentService(agent)
    source.leave = lambda: setattr(carries, "_leaving", True)
    monkeypatch.setattr(service, "pause_after", lambda failures: 0.0)
    monkeypatch.setattr(service, "JobRunner", lambda *arguments: SimpleNamespace(leave=lambda why: None))

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    carries._lease_jobs()
    assert source.asked == 3
    assert not carries._runners, "the one that could not be carried is not waited for"


def test_runs_are_closed_where_mlflow_could_not_be_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(uri: str) -> None:
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(run_closer, "connect", fails)
    left = threading.Event()
    source: Any = None
    closer = RunCloser(source, "", lambda: True)
    closer.start()
    tracking: Any = SimpleNamespace(leave=left.set)
    closer.put_aside(tracking)
    until(left.is_set, "the run is left open, and its thread ended")


@pytest.mark.parametrize(
    ("reasons", "seconds"),
    [
        ([Reason.INFRASTRUCTURE], 0.5),
        ([Reason.INFRASTRUCTURE, Reason.PENDING_TIMEOUT, Reason.INFRASTRUCTURE], 2.0),
        ([Reason.INFRASTRUCTURE] * 20, 30.0),
        ([Reason.INFRASTRUCTURE, Reason.COMPLETED], 0.0),
        ([Reason.USER_ERROR], 0.0),
    ],
)
def test_an_agent_of_which_jobs_fail_leaves_the_queue_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reasons: list[Reason], seconds: float
) -> None:
    cluster: Any = SimpleNamespace(lost=lambda: "")
    carries = AgentService(Agent("agent", cast("JobSource", None), cluster, Home(tmp_path), ""))
    now = 0.0
    monkeypatch.setattr(service.time, "monotonic", lambda: now)
    for reason in reasons:
        now = max(now, carries._rests_until)
        carries._remember(cast("JobRunner", SimpleNamespace(ending=Ending(reason))))
    assert max(0.0, carries._rests_until - now) == seconds
