"""An agent on a Ray cluster of two hosts that somebody else runs: the agent is killed, and then a whole host."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import psutil
import pytest
from foreground import Curve, title
from served import Served, endings, follow_each_other, slow_job_unbroken, succeeded

from epochal.ledger.states import JobState, Outcome, Reason
from epochal.ledger.values import WhyKind
from namespaces import Namespace, bridged
from ray_nodes import PORT, kill, ray_home, ray_node, variables

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("ip") is None, reason="needs `ip` (iproute2)"),
]


CUT_SECONDS = 60.0
NOTICED_SECONDS = 30.0


@pytest.fixture(scope="module")
def spaces() -> Iterator[list[Namespace]]:
    with bridged(f"ep{os.getpid() % 100000}", 2) as spaces:
        yield spaces


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Curve:
    return slow_job_unbroken(tmp_path_factory.mktemp("unbroken"))


@pytest.fixture
def home() -> Iterator[Path]:
    with ray_home() as home:
        yield home


@pytest.fixture
def served(tmp_path: Path, spaces: list[Namespace]) -> Iterator[Served]:
    with Served(tmp_path, "", spaces[0].command(), spaces[0].address) as served:
        served.slow.touch()
        yield served


def ranks(job_id: str) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if f"epochal:{job_id}:rank" in title(process)]


def submitted(served: Served, space: Namespace) -> str:
    change = f"env.SLOW_WHILE={served.slow}"
    return served.commanded("tests/faults/slow_job/job.yaml", "-s", change, within=space.command())


def test_the_agent_is_killed(served: Served, spaces: list[Namespace], home: Path, expected: Curve) -> None:
    head, other = spaces
    joined = ("--join", f"{head.address}:{PORT}", "--warm", "1")
    with ray_node(head, head, home), ray_node(other, head, home):
        agent = served.agent("agent-1", head.command(), *joined, **variables(home))
        job_id = submitted(served, head)
        served.until_step(job_id, 50)
        old = ranks(job_id)
        assert len(old) == 2
        agent.kill()
        served.until(lambda: not any(one.is_running() for one in old), "the old workers are gone, on both hosts", 60)
        agent.start()
        served.slow.unlink()
        job = served.until_ended(job_id)
        assert succeeded(job), job
        attempts = served.ledger.attempts(job_id)
        assert endings(attempts) == [
            (Outcome.INTERRUPTED, Reason.INTERRUPTED),
            (Outcome.SUCCEEDED, Reason.COMPLETED),
        ]
        assert follow_each_other(attempts)
        served.run_agrees(job, expected)
        assert not ranks(job_id)


def test_a_host_is_lost_and_comes_back(served: Served, spaces: list[Namespace], home: Path, expected: Curve) -> None:
    head, other = spaces
    joined = ("--join", f"{head.address}:{PORT}", "--warm", "1")
    with ray_node(head, head, home):
        with ray_node(other, head, home) as lost:
            served.agent("agent-1", head.command(), *joined, **variables(home))
            job_id = submitted(served, head)
            served.until_step(job_id, 50)
            kill(lost)
            killed = time.time()
            served.until(lambda: served.ledger.attempts(job_id)[0].outcome, "the attempt has ended", 60)
            served.until(lambda: served.ledger.job(job_id).state is JobState.QUEUED, "it waits for room", 60)
            served.until(lambda: served.ledger.why(job_id).kind is WhyKind.NEVER_FITS, "why says what is missing", 60)
        with ray_node(other, head, home):
            served.slow.unlink()
            job = served.until_ended(job_id)
        assert succeeded(job), job
        attempts = served.ledger.attempts(job_id)
        assert endings(attempts)[0] == (Outcome.FAILED, Reason.INFRASTRUCTURE)
        noticed = (attempts[0].ended_at or 0.0) - killed
        print(f"noticed {noticed:.1f} s after the host was lost: {attempts[0].message}")
        assert noticed < NOTICED_SECONDS
        assert f"; on node {other.address}" in attempts[0].message
        assert all(outcome is Outcome.INTERRUPTED for outcome, _ in endings(attempts)[1:-1])
        assert follow_each_other(attempts)
        served.run_agrees(job, expected)


def test_a_cable_is_cut_for_a_minute(served: Served, spaces: list[Namespace], home: Path, expected: Curve) -> None:
    """A raylet that Ray took for dead meanwhile ends once it hears of that, and is started again, as in a pod."""
    head, other = spaces
    joined = ("--join", f"{head.address}:{PORT}", "--warm", "1")
    with ray_node(head, head, home), ray_node(other, head, home) as node:
        served.agent("agent-1", head.command(), *joined, **variables(home))
        job_id = submitted(served, head)
        served.until_step(job_id, 50)
        other.cut()
        cut = time.time()
        try:
            served.until(lambda: served.ledger.attempts(job_id)[0].outcome, "the attempt has ended", 60)
            first = served.ledger.attempts(job_id)[0]
            print(f"noticed {(first.ended_at or 0.0) - cut:.1f} s after the cut: {first.message}")
            time.sleep(max(0.0, cut + CUT_SECONDS - time.time()))
        finally:
            other.mend()
        served.slow.unlink()
        served.until(lambda: node.poll() is not None or served.ledger.job(job_id).state.is_active, "who goes on", 180)
        with ray_node(other, head, home) if node.poll() is not None else nullcontext():
            job = served.until_ended(job_id, 300)
        print(f"done {time.time() - cut:.1f} s after the cut; its node was started again: {node.poll() is not None}")
    assert succeeded(job), job
    assert (first.outcome, first.reason) == (Outcome.FAILED, Reason.INFRASTRUCTURE)
    assert f"node {other.address} is not heard of for " in first.message
    assert (first.ended_at or 0.0) - cut < NOTICED_SECONDS
    assert follow_each_other(served.ledger.attempts(job_id))
    served.run_agrees(job, expected)
