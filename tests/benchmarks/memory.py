"""What `epochal up` holds while it waits for a job: each warm worker, the agent, and all of it, in GiB."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
from contender import BIN, WORKERS, workspace
from measure import Measurement, Promise, Section, interleave
from steps import wait_for

from epochal.urls import free_port

_GIB = 2**30
_SETTLE_SECONDS = 15.0
"""From the first idle worker on: the warm-up after its import, and the agent's own import of MLflow."""

_TORCH = [sys.executable, "-c", "import torch; print(flush=True); input()"]


def measure(rounds: int, quick: bool) -> Section:
    contenders: dict[str, Measurement] = {"epochal up": _waiting, "python with torch": _torch}
    return Section(
        "memory",
        "GiB",
        interleave(1 if quick else min(rounds, 3), contenders),
        [
            Promise("a warm worker's own, beside bare torch's", "warm worker, own", "python with torch, own"),
            Promise("a warm worker's share", "warm worker, share"),
            Promise("the agent's share", "agent, share"),
            Promise("all that waits, warm workers included", "all, share"),
        ],
        ["own: what ends with the process (USS). share: shared pages divided among those that have them (PSS)."],
    )


def _waiting() -> Mapping[str, float]:
    with workspace() as (_, environment), _services(environment) as supervisor:
        wait_for("warm workers", lambda: len(_warm(supervisor)) >= WORKERS or None, supervisor.is_running)
        time.sleep(_SETTLE_SECONDS)
        workers = [one.memory_full_info() for one in _warm(supervisor)]
        everyone = [supervisor, *supervisor.children(recursive=True)]
        agent = next(one for one in everyone if "agent" in one.cmdline())
        return {
            "warm worker, own": sum(one.uss for one in workers) / len(workers) / _GIB,
            "warm worker, share": sum(one.pss for one in workers) / len(workers) / _GIB,
            "agent, share": agent.memory_full_info().pss / _GIB,
            "all, share": sum(one.memory_full_info().pss for one in everyone) / _GIB,
        }


@contextmanager
def _services(environment: Mapping[str, str]) -> Iterator[psutil.Process]:
    """`epochal up`; its supervisor."""
    ports = ["--port", str(free_port()), "--mlflow-port", str(free_port())]
    subprocess.run(
        [BIN / "epochal", "up", "--warm", str(WORKERS), *ports],
        env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield psutil.Process(int((Path(environment["EPOCHAL_HOME"]) / "services" / "supervisor.lock").read_text()))
    finally:
        subprocess.run([BIN / "epochal", "down", "--now"], env=environment, check=True, stderr=subprocess.DEVNULL)


def _warm(supervisor: psutil.Process) -> list[psutil.Process]:
    return [one for one in supervisor.children(recursive=True) if one.name().startswith(("ray::IDLE", "ray::hold"))]


def _torch() -> Mapping[str, float]:
    with subprocess.Popen(_TORCH, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        own = psutil.Process(process.pid).memory_full_info().uss / _GIB
        process.communicate(b"\n")
    return {"python with torch, own": own}
