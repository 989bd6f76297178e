"""Jobs for the agent's tests: submitted into a real ledger, watched by the traces they leave in their folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from epochal.ledger.ledger import Ledger
from epochal.ledger.states import JobState
from epochal.ledger.values import Job
from epochal.settings import Home
from epochal.spec.job import JobSpec
from epochal.spec.load import load_spec
from polling import PATIENCE_SECONDS, until

ROOT = Path(__file__).parents[2]
STEPS = 120
SLOW_CODE = ROOT / "tests" / "faults" / "slow_job"
"""What the workers' processes need on their PYTHONPATH: steps that last long enough, however fast the machine is."""


Curve = list[tuple[int, float]]


def slowed(seconds: float) -> tuple[str, str]:
    """Changes of a job with the slow task: each of its steps lasts that much longer."""
    return f"env.SLOW_WHILE={SLOW_CODE}", f"env.SLOW_SECONDS='{seconds}'"


def spec(*overrides: str) -> JobSpec:
    """A small training that a test can interrupt: ``STEPS`` steps, a checkpoint every seven."""
    short = ("train.epochs=null", f"train.steps={STEPS}", "checkpoint.every=7steps", "train.validate_every=60steps")
    slow = ("task.name=slow_task:SlowClassification", *slowed(0.01))
    return load_spec(str(ROOT / "jobs" / "quickstart.yaml"), (*short, *slow, *overrides)).spec


def submit(ledger: Ledger, *overrides: str, **origin: Any) -> Job:
    resolved = spec(*overrides)
    return ledger.submit(
        resolved.model_dump(mode="json"),
        name=resolved.name,
        priority=resolved.priority,
        origin={"folder": str(ROOT / "jobs"), **origin},
    )


def ended(ledger: Ledger, job: Job, seconds: float = PATIENCE_SECONDS) -> Job:
    return until(lambda: (now := ledger.job(job.id)).state.is_terminal and now, f"the end of {job.id}", seconds)


def in_state(ledger: Ledger, job: Job, state: JobState) -> Job:
    return until(lambda: (now := ledger.job(job.id)).state is state and now, f"{job.id} is {state}")


def curve(home: Home, job: Job) -> Curve:
    """Every logged ``(step, loss)`` of a job in the order of the steps, doubles included, from its spool."""
    points = []
    for segment in home.job(job.id).glob("spool/*rank-0.jsonl"):
        for line in segment.read_text().splitlines():
            record = json.loads(line)
            if "train/loss" in record.get("m", {}):
                points.append((record["s"], record["m"]["train/loss"]))
    return sorted(points)


def wait_for_step(home: Home, job: Job, step: int) -> None:
    until(lambda: (points := _safely(home, job)) and points[-1][0] >= step, f"step {step} of {job.id}")


def _safely(home: Home, job: Job) -> Curve:
    try:
        return curve(home, job)
    except ValueError:  # half a line
        return []


def first_step_at(home: Home, job: Job, attempt: int = 1) -> float:
    """When the first step of an attempt was done, in Unix seconds."""
    segment = home.job(job.id) / "spool" / f"attempt-{attempt}-rank-0.jsonl"
    return float(json.loads(segment.read_text().splitlines()[0])["t"]) / 1000
