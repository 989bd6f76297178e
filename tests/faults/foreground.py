"""Drive ``epochal run`` as a user would, look at its processes and read its run back from MLflow."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from agent_jobs import Curve, slowed
from polling import until

STEPS = 120
SLOW_JOB = str(Path(__file__).parent / "slow_job" / "job.yaml")
SHORT = (f"train.steps={STEPS}", "checkpoint.every=7steps", "train.validate_every=60steps", *slowed(0.01))
SHORT_JOB = (SLOW_JOB, *(part for change in SHORT for part in ("-s", change)))
"""However fast the machine is, a step lasts long enough for a test to interrupt it in time."""


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "EPOCHAL_HOME": str(home)}


def epochal(home: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Another command of the same user, to its end."""
    command = [sys.executable, "-m", "epochal.cli.main", *arguments]
    variables = {**environment(home), **environ}
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300, check=False)


@dataclass
class Foreground:
    """One ``epochal run`` in a process of its own."""

    process: subprocess.Popen[str]
    home: Path

    @classmethod
    def start(cls, home: Path, *arguments: str, **environ: str) -> Foreground:
        process = subprocess.Popen(
            [sys.executable, "-m", "epochal.cli.main", "run", *arguments, "-o", "json"],
            env={**environment(home), **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return cls(process, home)

    def finish(self, timeout: float = 240) -> dict[str, Any]:
        """Wait for the end; the parsed summary, with the exit code as ``exit``."""
        out, err = self.process.communicate(timeout=timeout)
        summary = json.loads(out) if out.strip() else {}
        return {**summary, "exit": self.process.returncode, "stderr": err}

    def worker(self, rank: int, deadline: float = 90) -> psutil.Process:
        """The process of a rank, by the name it gives itself in ``ps``."""

        def found() -> psutil.Process | None:
            for child in self.descendants():
                if re.search(rf"\bepochal:\S+:rank{rank}\s*$", title(child)):
                    return child
            assert self.process.poll() is None, f"ended early: {self.finish()}"
            return None

        one: psutil.Process = until(found, f"a process of rank {rank} is there", deadline)
        return one

    def descendants(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def wait_for_step(self, step: int, deadline: float = 120) -> None:
        """Until the spool holds metrics of at least ``step``."""
        end = time.monotonic() + deadline
        while self.last_step() < step:
            assert time.monotonic() < end, f"step {step} was not reached: at {self.last_step()}"
            if self.process.poll() is not None:
                raise AssertionError(f"ended early: {self.finish()}")
            time.sleep(0.02)

    def last_step(self) -> int:
        return max((last_step(folder) for folder in self.home.glob("storage/jobs/*")), default=0)


def last_step(folder: Path) -> int:
    """The newest step in the spools of rank 0 of the job in ``folder``."""
    spools = folder.glob("spool/*rank-0.jsonl")
    return max((_step(line) for spool in spools for line in spool.read_bytes().splitlines()[-3:]), default=0)


def run_status(summary: Mapping[str, Any]) -> str:
    """What MLflow says of the run of a summary."""
    from mlflow import MlflowClient

    return str(MlflowClient(summary["tracking_uri"]).get_run(summary["run_id"]).info.status)


def history(tracking_uri: str, run_id: str, metric: str = "train/loss") -> Curve:
    """Every logged ``(step, value)`` of a metric, in the order of the steps, doubles included."""
    from mlflow import MlflowClient

    points = MlflowClient(tracking_uri).get_metric_history(run_id, metric)
    return sorted((point.step, point.value) for point in points)


def _step(line: bytes) -> int:
    try:
        return int(json.loads(line)["s"])
    except (ValueError, KeyError):  # half a line, or not a metric
        return 0


def title(process: psutil.Process) -> str:
    """What ``ps`` shows of it; empty once it is gone."""
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""
