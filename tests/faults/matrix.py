"""What the fault matrix strikes, when, and how it judges what became of the job."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import product

import psutil
import pytest
from foreground import SLOW_JOB, Curve, history, last_step, run_status, title
from served import follow_each_other
from stack import WORKER, Stack

from agent_jobs import slowed
from epochal.errors import EpochalError
from epochal.ledger.states import JobState, Reason
from epochal.ledger.values import Job
from epochal.spec.load import LoadedSpec, load_spec

STEPS = 900
CHANGES = (
    f"train.steps={STEPS}", f"train.validate_every={STEPS // 3}steps", "checkpoint.every=50steps", "retry.infra=20",
    *slowed(0.002),
)  # fmt: skip
STRIKE_AT_STEP = 300
STARTING_TRIES = 5
SESSION_MARK = "TESTS_THAT_STARTED_ME"
"""As in ``tests/conftest.py``."""
OVERLAP_SECONDS = 2.0
"""How long two processes of one rank may both be there: the time that killing the old one takes."""

VICTIMS = ("worker", "agent", "server", "raylet", "gcs_server", "mlflow", "postgres")
MOMENTS = ("queued", "starting", "running", "checkpointing", "stopping")
DOWN_SECONDS = (0, 5, 30)


@dataclass(frozen=True)
class Case:
    """``victim`` gets SIGKILL at ``moment`` and is started again ``down`` seconds later."""

    victim: str
    moment: str
    down: int

    def __str__(self) -> str:
        return f"{self.victim}-{self.moment}-{self.down}s"


CASES = [
    Case(*case)
    for case in product(VICTIMS, MOMENTS, DOWN_SECONDS)
    # Ray or the agent replaces a killed worker; nobody can keep it down.
    if not (case[0] == "worker" and case[2])
]


@dataclass
class Row:
    """A line of the table that is printed at the end."""

    case: str
    ended: str = ""
    attempts: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        verdict = "; ".join(self.problems) or "ok"
        return f"{self.case:<28} {self.ended:<28} {self.attempts:>8}  {self.seconds:>6.1f} s  {verdict}"


ROWS = pytest.StashKey[list[Row]]()
"""Every row of the session, for the table."""

HEAD = f"{'struck':<28} {'ended':<28} {'attempts':>8}  {'time':>8}  verdict"


def spec(*more: str) -> LoadedSpec:
    return load_spec(SLOW_JOB, (*CHANGES, *more))


def run_case(stack: Stack, case: Case, unbroken: Curve) -> Row:
    """Submit a job, strike, and judge the end."""
    begun = time.monotonic()
    row = Row(str(case))
    with overlaps() as doubled:
        jobs = _submitted(stack, case)
        _await_moment(stack, case.moment, jobs)
        strike(stack, case)
        ended = [stack.until(_ended(stack, job), f"{job.id} ends", 180) for job in jobs]
    for job in ended:
        row.problems += list(judge(stack, job, unbroken, case.moment == "stopping"))
    row.problems += [f"two processes at once: {one}" for one in doubled]
    row.ended = ", ".join(sorted({f"{job.state} ({job.reason})" for job in ended}))
    row.attempts = sum(job.epoch for job in ended)
    row.seconds = time.monotonic() - begun
    return row


def strike(stack: Stack, case: Case) -> None:
    """SIGKILL, the time that it stays down, and its new start."""
    if case.victim == "worker":
        _kill_worker(stack)
    elif case.victim in ("raylet", "gcs_server"):
        for process in stack.rays(case.victim):
            process.kill()
        stack.agent.wait_for_end()
    else:
        service = getattr(stack, case.victim)
        service.kill()
    time.sleep(case.down)
    if case.victim in ("agent", "raylet", "gcs_server"):
        stack.agent.start()
    elif case.victim != "worker":
        getattr(stack, case.victim).start()


def judge(stack: Stack, job: Job, unbroken: Curve, may_be_stopped: bool) -> Iterator[str]:
    """Everything that is wrong with a job that has ended."""
    stopped = job.state is JobState.STOPPED
    right = {(JobState.SUCCEEDED, Reason.COMPLETED), *([(JobState.STOPPED, Reason.STOPPED_BY_USER)] * may_be_stopped)}
    if (job.state, job.reason) not in right:
        yield f"{job.id} is {job.state} ({job.reason}): {job.message}"
        return
    if not follow_each_other(stack.client.attempts(job.id)):
        yield f"two attempts of {job.id} were live at once"
    yield from _judge_run(stack, job, unbroken, stopped)
    if not _within(10.0, lambda: not _processes_of(job.id)):
        yield f"processes are left: {_processes_of(job.id)}"


def _judge_run(stack: Stack, job: Job, unbroken: Curve, stopped: bool) -> Iterator[str]:
    if not _within(60.0, lambda: _run_id(stack, job) != ""):
        yield f"{job.id} has no run"
        return
    run = {"tracking_uri": stack.mlflow.url, "run_id": _run_id(stack, job)}
    status = "KILLED" if stopped else "FINISHED"
    if not _within(60.0, lambda: run_status(run) == status):
        yield f"the run is {run_status(run)}, not {status}"
    curve = history(run["tracking_uri"], run["run_id"])
    expected = unbroken[: len(curve)] if stopped else unbroken
    if curve != expected:
        other = next((pair for pair in zip(curve, expected, strict=False) if pair[0] != pair[1]), (None, None))
        yield f"{job.id}: the curve of {len(curve)} points is not the unbroken one: {other[0]}, not {other[1]}"


def _run_id(stack: Stack, job: Job) -> str:
    """By the run's tag: a job that ended while MLflow was away learns of its run later."""
    from mlflow import MlflowClient

    client = MlflowClient(stack.mlflow.url)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, f"tags.`epochal.job_id` = '{job.id}'")
    return str(runs[0].info.run_id) if runs else ""


def _submitted(stack: Stack, case: Case) -> list[Job]:
    """The job; before it another that takes the whole cluster where it is to wait in the queue."""
    if case.moment == "starting":
        return [_caught_starting(stack)]
    count = 2 if case.moment == "queued" else 1
    return [stack.client.submit(spec()).job for _ in range(count)]


def _caught_starting(stack: Stack) -> Job:
    """With warm workers that lasts some 50 ms: a job that is seen RUNNING is left alone, and another one tried."""
    for _ in range(STARTING_TRIES):
        job = stack.client.submit(spec()).job
        state = stack.until(lambda job=job: _left_queue(stack, job), "it starts")
        if state is JobState.STARTING:
            return job
        stack.until(_ended(stack, job), f"{job.id} ends", 180)
    raise AssertionError(f"none of {STARTING_TRIES} jobs was seen STARTING")


def _left_queue(stack: Stack, job: Job) -> JobState | None:
    state = stack.client.job(job.id).state
    return state if state is not JobState.QUEUED else None


def _await_moment(stack: Stack, moment: str, jobs: list[Job]) -> None:
    first = jobs[0]
    folder = stack.job_folder(first.id)
    if moment == "starting":
        return  # it was caught
    stack.until(lambda: last_step(folder) >= STRIKE_AT_STEP, f"step {STRIKE_AT_STEP}")
    if moment == "checkpointing":
        stack.until(lambda: list(folder.glob("checkpoints/*.tmp-*")), "a checkpoint is being written")
    elif moment == "stopping":
        stack.client.stop(first.id)


def _ended(stack: Stack, job: Job) -> Callable[[], Job | None]:
    def look() -> Job | None:
        now = stack.client.job(job.id)
        return now if now.state.is_terminal else None

    return look


def _kill_worker(stack: Stack) -> None:
    """The newest: rank 0 where the others have not started yet."""
    stack.until(lambda: list(stack.workers()), "a worker is there")
    max(stack.workers(), key=lambda worker: worker[0])[1].kill()


def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if condition():
                return True
        except EpochalError:
            pass
        time.sleep(0.1)
    return False


@contextmanager
def overlaps() -> Iterator[list[str]]:
    """Names of ranks of which two processes were there at once for longer than it takes to kill one."""
    found: list[str] = []
    done = threading.Event()

    def look() -> None:
        since: dict[str, float] = {}
        while not done.wait(0.3):
            now = time.monotonic()
            doubled = {name for name, pids in _ranks().items() if len(pids) > 1}
            since = {name: since.get(name, now) for name in doubled}
            found.extend(name for name, begun in since.items() if now - begun > OVERLAP_SECONDS and name not in found)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def _ranks() -> dict[str, list[int]]:
    """Of these tests alone: another suite may run beside them."""
    found = defaultdict(list)
    for process in psutil.process_iter():
        name = title(process)
        with suppress(psutil.Error):
            if WORKER.search(name) and process.environ().get(SESSION_MARK) == os.environ[SESSION_MARK]:
                found[name.strip()].append(process.pid)
    return found


def _processes_of(job_id: str) -> list[str]:
    return [name for name in _ranks() if f"epochal:{job_id}:" in name]
