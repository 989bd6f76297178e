"""kill -9 of every part of `epochal up` at random moments: sweeps and jobs end as if nothing had been."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from foreground import SLOW_JOB, Curve, history, run_status, title
from matrix import OVERLAP_SECONDS, ROWS, Row, overlaps
from served import slow_job_unbroken
from stack import WORKER
from swept import CLOSED, SWEEP, Swept, Trainings, reached, stands

from agent_jobs import slowed
from epochal.client.client import Client
from epochal.errors import EpochalError
from epochal.ledger.states import JobState
from epochal.settings import home
from local_services import Here
from polling import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

KILLS = 10
PARTS = ("agent", "worker", "gcs_server", "server", "mlflow")
ALL_PARTS = (*PARTS, "raylet")
ENDS_SECONDS = 600.0
JOB_CHANGES = ("train.steps=400", "resources.workers=1", "train.validate_every=200steps", "retry.infra=50")
ALONE = ("sweep.concurrency=1",)
POPULATION = "sweep.trial_scheduler={name: pbt, min: 1ep, quantile: 0.4}"


@dataclass
class Broken:
    """`epochal up`, parts of which a test kills."""

    here: Here
    draw: random.Random
    killed: Counter[str] = field(default_factory=Counter)
    resumed: int = 0

    def __post_init__(self) -> None:
        services = self.here.up()
        self.tracking_uri = services.url("mlflow")
        self.client = Client(services.url("server"), home().token.read_text().strip())

    def kill(self, part: str) -> bool:
        """SIGKILL one process of that part; whether there was one."""
        for process in self._processes(part):
            with suppress(psutil.NoSuchProcess):
                process.kill()
                self.killed[part] += 1
                return True
        return False

    def kill_soon(self, part: str, job_id: str) -> None:
        """At a random moment after that sweep has got on."""
        seen = self.reached(job_id)
        until(lambda: self.reached(job_id) > seen or self.ended(job_id), "it gets on")
        time.sleep(self.draw.uniform(0.0, 1.0))
        until(lambda: self.kill(part) or self.ended(job_id), f"there is {part} to kill")

    def _processes(self, part: str) -> Iterator[psutil.Process]:
        services = self.here.services()
        if part in services:
            with suppress(psutil.NoSuchProcess):
                yield psutil.Process(services[part].pid or 0)
            return
        with suppress(psutil.NoSuchProcess):
            below = psutil.Process(services["agent"].pid or 0).children(recursive=True)
            self.draw.shuffle(below)
            yield from (one for one in below if _is(one, part))

    def answer(self, call: Callable[[], Any]) -> Any:
        """What the server says, once it is there."""

        def asked() -> Any:
            with suppress(EpochalError):
                return call() or True
            return None

        return until(asked, "the server answers")

    def submit(self, spec: str, *changes: str) -> str:
        key = f"{self.draw.random()}"
        submitted = self.answer(lambda: self.client.submit(spec, changes, key=key))
        return str(submitted.id)

    def reached(self, job_id: str) -> int:
        return reached(home().served.job(job_id))

    def ended(self, job_id: str) -> bool:
        """Whether it has; one that was PAUSED because its agents were lost is resumed, as its user would."""
        job = self.answer(lambda: self.client.job(job_id))
        if job.state is JobState.PAUSED and "were lost" in job.message:
            self.resumed += 1
            print(f"{job_id} is resumed: {job.message}")
            self.answer(lambda: self.client.resume(job_id))
        return bool(job.state.is_terminal)

    def until_ended(self, *jobs: str) -> None:
        until(lambda: all(self.ended(one) for one in jobs), f"the end of {jobs}", ENDS_SECONDS)

    def swept(self, job_id: str) -> Swept:
        """Once MLflow has all of it, and the ledger knows that."""
        with suppress(AssertionError):  # the judge says what is missing
            until(lambda: self._is_told(job_id) and self._closed(job_id), "MLflow has it", 180)
        return Swept.of(self.client, self.tracking_uri, job_id)

    def _is_told(self, job_id: str) -> bool:
        with suppress(EpochalError):
            return all(one.run_id for one in self.client.trials(job_id))
        return False

    def _closed(self, job_id: str) -> bool:
        with suppress(Exception):  # MLflow may have been killed just now
            run = {"tracking_uri": self.tracking_uri, "run_id": self.client.job(job_id).run_id}
            return run_status(run) in CLOSED
        return False

    def job_problems(self, job_id: str, unbroken: Curve) -> Iterator[str]:
        job = self.client.job(job_id)
        if job.state is not JobState.SUCCEEDED:
            yield f"{job_id} is {job.state} ({job.reason}): {job.message}"
            return
        until(lambda: self.client.job(job_id).run_id and self._closed(job_id), "its run is closed", 120)
        run_id = str(self.client.job(job_id).run_id)
        if (status := run_status({"tracking_uri": self.tracking_uri, "run_id": run_id})) != "FINISHED":
            yield f"the run of {job_id} is {status}"
        if history(self.tracking_uri, run_id) != unbroken:
            yield f"the curve of {job_id} is not the unbroken one"


def _is(process: psutil.Process, part: str) -> bool:
    try:
        return bool(WORKER.search(title(process))) if part == "worker" else process.name() == part
    except psutil.Error:
        return False


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[Broken]:
    here = Here()
    try:
        yield Broken(here, random.Random(0))
    finally:
        here.epochal("down", "--now")
        here.until_gone()


def told(config: pytest.Config, what: str, broken: Broken, problems: list[str], begun: float) -> None:
    killed = ", ".join(f"{count} x {part}" for part, count in sorted(broken.killed.items()))
    row = Row(
        what, f"{killed}; {broken.resumed} resumed", sum(broken.killed.values()), time.monotonic() - begun, problems
    )
    config.stash.setdefault(ROWS, []).append(row)
    print(row)
    assert not problems, row


@pytest.mark.parametrize("part", PARTS)
def test_ten_kills_of_one_part_leave_the_sweep_of_no_kills(
    broken: Broken, trainings: Trainings, part: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """Its trials train one after another, so that there is but one sweep that it can be."""
    begun, slow = time.monotonic(), tmp_path / "slow"
    slow.touch()  # so long that there are ten kills before its end
    job_id = broken.submit(SWEEP, *ALONE, f"env.SLOW_WHILE={slow}", "env.SLOW_SECONDS='0.3'", "sweep.trials=40")
    with overlaps() as doubled:
        for _ in range(KILLS):
            broken.kill_soon(part, job_id)
        slow.unlink()
        broken.until_ended(job_id)
    problems = [*broken.swept(job_id).problems(trainings, ordered=True)]
    problems += [f"two processes for {OVERLAP_SECONDS:g} s: {one}" for one in doubled]
    told(pytestconfig, f"sweep {part} x {KILLS}", broken, problems, begun)


def test_kills_of_the_agent_leave_the_population_of_no_kills(broken: Broken, pytestconfig: pytest.Config) -> None:
    """Trials take over the weights of others (PBT), so that no plain training says what they should be."""
    begun = time.monotonic()
    pbt = (*ALONE, *slowed(0.02), "train.epochs=8", "sweep.trials=5", POPULATION)
    unbroken = broken.submit(SWEEP, *pbt)
    broken.until_ended(unbroken)
    job_id = broken.submit(SWEEP, *pbt)
    for _ in range(KILLS // 2):
        broken.kill_soon("agent", job_id)
    broken.until_ended(job_id)
    had, wanted = ([stands(one.trial) for one in broken.client.trials(one)] for one in (job_id, unbroken))
    problems = [f"{job_id}: {one}, not {other}" for one, other in zip(had, wanted, strict=False) if one != other]
    told(pytestconfig, "pbt agent", broken, problems + ([] if len(had) == len(wanted) else ["trials"]), begun)


def test_random_kills_of_all_parts_over_sweeps_and_jobs(
    broken: Broken, trainings: Trainings, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """Two sweeps and two jobs at a time, and two more of each when those have ended, for as long as is asked for."""
    here, begun, seconds = broken.here, time.monotonic(), float(pytestconfig.getoption("kill_seconds"))
    unbroken = slow_job_unbroken(tmp_path / "unbroken", *JOB_CHANGES)
    ordered, others, jobs = [], [], []
    with overlaps() as doubled:
        while time.monotonic() - begun < seconds:
            slow = slowed(0.02)
            ordered.append(broken.submit(SWEEP, *ALONE, *slow))
            others.append(broken.submit(SWEEP, *slow, "sweep.search.name=tpe", "sweep.trial_scheduler.name=hyperband"))
            jobs += [broken.submit(SLOW_JOB, *JOB_CHANGES, *slow) for _ in range(2)]
            wave = (ordered[-1], others[-1], *jobs[-2:])
            while not all(broken.ended(one) for one in wave) and time.monotonic() - begun < seconds:
                time.sleep(broken.draw.uniform(1.0, 10.0))
                broken.kill(part := broken.draw.choice(ALL_PARTS))
                if part not in ("worker", "server", "mlflow"):  # what never gets to its feet shows nothing
                    with suppress(AssertionError):
                        until(lambda: here.services().ready, "all parts are there again", 60)
        broken.until_ended(*ordered, *others, *jobs)
    problems = [problem for one in ordered for problem in broken.swept(one).problems(trainings, ordered=True)]
    problems += [problem for one in others for problem in broken.swept(one).problems(trainings)]
    problems += [problem for one in jobs for problem in broken.job_problems(one, unbroken)]
    problems += [f"two processes for {OVERLAP_SECONDS:g} s: {one}" for one in doubled]
    told(pytestconfig, f"{len(ordered + others)} sweeps, {len(jobs)} jobs", broken, problems, begun)
