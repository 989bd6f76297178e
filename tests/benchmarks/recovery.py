"""Seconds from the SIGKILL of a worker to the next *new* step: one that no process had done before."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import epochal_job
import ray_train
import steps
import torchrun
from contender import Contender, workspace
from measure import Measurement, Promise, Section, interleave, progress

CHECKPOINT_EVERY = 100
"""Steps. The kill comes half way between two checkpoints, so all repeat about as many."""
KILL_AFTER_SECONDS = 10
SPARES_AFTER_SECONDS = 45
"""From the first step on. A job that has only just begun is a rare victim, and where training leaves no core free,
Epochal's spare workers take up to 40 s to become ready: it is killed once before and once after that."""
MANY = 1_000_000
VICTIM = 1
LONGEST_SECONDS = 60.0
"""Who has not recovered by then does not."""

Curve = list[tuple[int, float]]
"""The steps and values of ``train/loss`` as recorded."""


def measure(rounds: int, quick: bool) -> Section:
    curves: list[Curve] = []
    raw = interleave(
        rounds,
        {
            "epochal": lambda: _epochal("epochal", curves, SPARES_AFTER_SECONDS),
            "epochal, early": lambda: _epochal("epochal, early", curves, KILL_AFTER_SECONDS),
            "torchrun": _recovery("torchrun --max-restarts", _torchrun),
            "ray train": _recovery("ray train", lambda: _ray_train(ray_train.DEFAULTS)),
            "ray train, tuned": _recovery("ray train, tuned", lambda: _ray_train(ray_train.TUNED)),
            "torchrun cold": _torchrun_cold,
        },
    )
    promises = [
        Promise("beside torchrun's own cold start", "epochal", "torchrun cold start", 0.3),
        Promise("  killed early, before spare workers are ready", "epochal, early", "torchrun cold start"),
        Promise("beside torchrun --max-restarts", "epochal", "torchrun --max-restarts"),
        Promise("beside Ray Train's FailureConfig", "epochal", "ray train"),
        Promise("beside Ray Train's FailureConfig, tuned", "epochal", "ray train, tuned"),
    ]
    unbroken = dict(_unbroken(max(step for curve in curves for step, _ in curve)))
    title = "seconds from SIGKILL of rank 1 to the next new step"
    return Section("recovery", title, raw, promises, [NOTE, *(_compared(curve, unbroken) for curve in curves)])


NOTE = (
    f"checkpoints every {CHECKPOINT_EVERY} steps; the kill comes {KILL_AFTER_SECONDS} s after the first step and half\n"
    f"way between two checkpoints; for epochal {SPARES_AFTER_SECONDS} s after it, unless early\n"
    "tuned: no dashboard, the controller polls every 0.1 s instead of every 2 s"
)


def _recovery(name: str, start: Callable[[], AbstractContextManager[Contender]]) -> Measurement:
    def once() -> dict[str, float]:
        with start() as contender:
            return {name: _killed_and_recovered(contender)}

    def run() -> dict[str, float]:
        try:
            return once()
        except RuntimeError as error:
            # Seen of torchrun: a restarted rank connects to the address of one that has gone, and it waits for ever.
            progress(f"{name} did not recover ({error}); once more")
            return once()

    return run


def _killed_and_recovered(contender: Contender, after: float = KILL_AFTER_SECONDS) -> float:
    contender.train_for(after)
    victim = steps.wait_for("a step to kill at", lambda: _victim(contender), contender.alive)
    before = {worker.pid for worker in steps.workers(contender.steps)}
    killed = time.time()
    os.kill(victim.pid, signal.SIGKILL)
    new = steps.wait_for("new step", lambda: _new_step(contender, before), contender.alive, LONGEST_SECONDS)
    return new.at - killed


def _victim(contender: Contender) -> steps.Worker | None:
    worker = steps.running(contender.steps, VICTIM)
    return worker if worker and worker.newest.number % CHECKPOINT_EVERY >= CHECKPOINT_EVERY / 2 else None


def _new_step(contender: Contender, before: set[int]) -> steps.Step | None:
    """A survivor may finish the step it is in, so only the processes that come after count."""
    workers = steps.workers(contender.steps)
    done = max(worker.newest.number for worker in workers if worker.pid in before)
    later = [worker for worker in workers if worker.pid not in before and worker.newest.number > done]
    found = [step for worker in later for step in worker.steps() if step.number > done]
    return min(found, key=lambda step: step.at, default=None)


def _epochal(name: str, curves: list[Curve], after: float) -> dict[str, float]:
    with workspace() as (folder, env):
        with epochal_job.start(folder, env, steps=MANY, checkpoint_every=CHECKPOINT_EVERY) as contender:
            seconds = _killed_and_recovered(contender, after)
        curves.append(_curve(folder))
    return {name: seconds}


def _unbroken(count: int) -> Curve:
    with workspace() as (folder, env):
        with epochal_job.start(folder, env, steps=count, checkpoint_every=count) as contender:
            contender.wait()
        return _curve(folder)


def _curve(folder: Path) -> Curve:
    from epochal.settings import home
    from epochal.tracking.metric_spool import read_lines, segments

    jobs = (home({"EPOCHAL_HOME": str(folder / "epochal")}).storage / "jobs").iterdir()
    lines = (line for job in jobs for path in segments(job) for line in read_lines(path))
    return [(point.step, point.value) for line in lines for point in line.points if point.name == "train/loss"]


def _compared(curve: Curve, unbroken: dict[int, float]) -> str:
    counts = Counter(step for step, _ in curve)
    missing = max(counts) - len(counts)
    doubled = sum(count - 1 for count in counts.values())
    off = max(abs(value - unbroken[step]) for step, value in curve)
    return (
        f"the killed run's loss curve beside an unbroken one's: {len(counts)} steps, {missing} missing, {doubled}"
        f" doubled, greatest difference {off:g}"
    )


@contextmanager
def _torchrun() -> Iterator[Contender]:
    with workspace() as (folder, env):
        checkpoints = folder / "checkpoints"
        checkpoints.mkdir()
        with torchrun.start(folder, env, max_restarts=3, **_options(checkpoints)) as contender:
            yield contender


@contextmanager
def _ray_train(settings: dict[str, str]) -> Iterator[Contender]:
    with (
        workspace() as (folder, env),
        ray_train.start(folder, env, settings, **_options(folder / "results")) as contender,
    ):
        yield contender


def _options(checkpoints: Path) -> dict[str, Any]:
    return {"checkpoints": str(checkpoints), "checkpoint_every": CHECKPOINT_EVERY, "steps": MANY}


def _torchrun_cold() -> dict[str, float]:
    with workspace() as (folder, env), torchrun.start(folder, env) as contender:
        return {"torchrun cold start": contender.first_step()}
