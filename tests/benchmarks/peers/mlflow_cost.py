"""MLflow's side of ``metric_cost``: ``python mlflow_cost.py sync|async|batch CALLS`` prints each call's microseconds.

``sync`` and ``async`` are ``mlflow.log_metric`` (one metric a call), ``batch`` is ``MlflowClient.log_batch`` with a
thousand metrics a call, the most that it takes. ``drain`` is what the last flush takes, until all has arrived.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import mlflow
from mlflow.entities import Metric


def main(way: str, calls: int) -> None:
    mlflow.set_experiment("cost")
    with mlflow.start_run() as run:
        log = {"sync": _sync, "async": _async, "batch": _batch(run.info.run_id)}[way]
        spent = []
        for step in range(calls):
            start = time.perf_counter_ns()
            log(step)
            spent.append((time.perf_counter_ns() - start) / 1000)
        start = time.perf_counter_ns()
        if way == "async":
            mlflow.flush_async_logging()
        print(json.dumps({"calls": spent, "drain": (time.perf_counter_ns() - start) / 1000}))


def _sync(step: int) -> None:
    mlflow.log_metric("train/loss", 0.5 / (step + 1), step=step, synchronous=True)


def _async(step: int) -> None:
    mlflow.log_metric("train/loss", 0.5 / (step + 1), step=step, synchronous=False)


def _batch(run_id: str) -> Callable[[int], None]:
    client = mlflow.MlflowClient()

    def log(call: int) -> None:
        now, first = int(time.time() * 1000), call * 1000
        metrics = [Metric("train/loss", 0.5 / (step + 1), now, step) for step in range(first, first + 1000)]
        client.log_batch(run_id, metrics)

    return log


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
