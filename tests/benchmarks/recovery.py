"""Seconds from the SIGKILL of a worker to the next *new* step: one that no process had done before."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import epochal_job
import ray_train
import steps
import torchrun
from contender import Contender, workspace
from measure import Measurement, Promise, Section, interleave

CHECKPOINT_EVERY = 50
KILL_AT = 120
"""Steps: the kill comes between two checkpoints, so all repeat the same few steps."""
MANY = 100_000
VICTIM = 1


def measure(rounds: int, quick: bool) -> Section:
    raw = interleave(
        rounds,
        {
            "epochal": _recovery("epochal", _epochal),
            "torchrun": _recovery("torchrun --max-restarts", _torchrun),
            "ray train": _recovery("ray train", lambda: _ray_train(ray_train.DEFAULTS)),
            "ray train, tuned": _recovery("ray train, tuned", lambda: _ray_train(ray_train.TUNED)),
            "torchrun cold": _torchrun_cold,
        },
    )
    return Section(
        "recovery",
        "seconds from SIGKILL of rank 1 to the next new step",
        raw,
        [
            Promise("beside torchrun's own cold start", "epochal", "torchrun cold start", 1.0),
            Promise("beside torchrun --max-restarts", "epochal", "torchrun --max-restarts"),
            Promise("beside Ray Train's FailureConfig", "epochal", "ray train"),
            Promise("beside Ray Train's FailureConfig, tuned", "epochal", "ray train, tuned"),
        ],
        [
            f"checkpoints every {CHECKPOINT_EVERY} steps, the kill once step {KILL_AT} is done;\n"
            "tuned: no dashboard, the controller polls every 0.1 s instead of every 2 s"
        ],
    )


def _recovery(name: str, start: Callable[[], AbstractContextManager[Contender]]) -> Measurement:
    def run() -> dict[str, float]:
        with start() as contender:
            return {name: _killed_and_recovered(contender)}

    return run


def _killed_and_recovered(contender: Contender) -> float:
    def victim() -> steps.Worker | None:
        worker = steps.running(contender.steps, VICTIM)
        return worker if worker and worker.steps[-1].number >= KILL_AT else None

    def new_step() -> steps.Step | None:
        """A survivor may finish the step it is in, so only the processes that come after count."""
        done = max(worker.steps[-1].number for worker in steps.read(contender.steps) if worker.pid in before)
        later = [worker for worker in steps.read(contender.steps) if worker.pid not in before]
        found = [step for worker in later for step in worker.steps if step.number > done]
        return min(found, key=lambda step: step.at, default=None)

    worker = steps.wait_for(f"step {KILL_AT}", victim, contender.alive)
    before = {worker.pid for worker in steps.read(contender.steps)}
    killed = time.time()
    os.kill(worker.pid, signal.SIGKILL)
    return steps.wait_for("a new step after the kill", new_step, contender.alive).at - killed


@contextmanager
def _epochal() -> Iterator[Contender]:
    with (
        workspace() as (folder, env),
        epochal_job.start(folder, env, steps=MANY, checkpoint_every=CHECKPOINT_EVERY) as contender,
    ):
        yield contender


@contextmanager
def _torchrun() -> Iterator[Contender]:
    with workspace() as (folder, env):
        checkpoints = folder / "checkpoints"
        checkpoints.mkdir()
        options: dict[str, Any] = {"checkpoints": str(checkpoints), "checkpoint_every": CHECKPOINT_EVERY, "steps": MANY}
        with torchrun.start(folder, env, max_restarts=3, **options) as contender:
            yield contender


@contextmanager
def _ray_train(settings: dict[str, str]) -> Iterator[Contender]:
    with workspace() as (folder, env):
        options: dict[str, Any] = {
            "checkpoints": str(folder / "results"),
            "checkpoint_every": CHECKPOINT_EVERY,
            "steps": MANY,
        }
        with ray_train.start(folder, env, settings, **options) as contender:
            yield contender


def _torchrun_cold() -> dict[str, float]:
    with workspace() as (folder, env), torchrun.start(folder, env) as contender:
        return {"torchrun cold start": contender.first_step()}
