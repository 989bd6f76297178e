"""What one metric costs the step that logs it, in microseconds: Epochal's spool beside MLflow's own calls."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, median

import mlflow_server
from contender import PEERS, workspace
from measure import Measurement, Promise, Section, interleave

SPOOL = Path(__file__).parent / "spool_cost.py"
MLFLOW = PEERS / "mlflow_cost.py"


def measure(rounds: int, quick: bool) -> Section:
    with workspace() as (folder, env), mlflow_server.running(folder, env) as address:
        calls = 100 if quick else 300
        peer_env = {**env, "MLFLOW_TRACKING_URI": address}
        raw = interleave(
            rounds,
            {
                "epochal": _cost("epochal", [SPOOL, 20_000], folder, env),
                "mlflow sync": _cost("mlflow sync", [MLFLOW, "sync", calls], folder, peer_env),
                "mlflow async": _cost("mlflow async", [MLFLOW, "async", calls], folder, peer_env),
                "mlflow log_batch": _cost("mlflow log_batch", [MLFLOW, "batch", 10], folder, peer_env, 1000),
            },
        )
    return Section(
        "metric-cost",
        "microseconds a metric; each figure is the median call of a process",
        raw,
        [
            Promise("one metric", "epochal", limit=5),
            Promise("one metric, mean call and the last flush in it", "epochal, all in"),
            Promise("beside log_metric", "epochal", "mlflow sync", 0.0001),
            Promise("beside log_metric(synchronous=False)", "epochal", "mlflow async"),
            Promise("  until all has left the process", "epochal, all in", "mlflow async, all in"),
            Promise("beside log_batch of 1,000, a metric", "epochal", "mlflow log_batch"),
        ],
    )


def _cost(
    name: str, arguments: list[object], folder: Path, env: Mapping[str, str], metrics_a_call: int = 1
) -> Measurement:
    def run() -> dict[str, float]:
        command = [sys.executable, *(str(argument) for argument in arguments)]
        done = subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout.splitlines()[0])
        spent = found["calls"]
        all_in = fmean(spent) + found["drain"] / len(spent)
        return {name: median(spent) / metrics_a_call, f"{name}, all in": all_in / metrics_a_call}

    return run
