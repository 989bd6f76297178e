"""Epochal's side of ``metric_cost``: ``python spool_cost.py CALLS`` prints each ``MetricSpool.log``'s microseconds."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from epochal.tracking.metric_spool import MetricSpool, last_steps


def main(calls: int) -> None:
    # A folder of its own: what an earlier round has written would be skipped here, which costs next to nothing.
    folder = Path(tempfile.mkdtemp(dir=Path.cwd()))
    writer = MetricSpool(folder, "cost")
    spent = []
    for step in range(calls):
        start = time.perf_counter_ns()
        writer.log(step, {"train/loss": 0.5 / (step + 1)})
        spent.append((time.perf_counter_ns() - start) / 1000)
    start = time.perf_counter_ns()
    writer.flush()
    drain = (time.perf_counter_ns() - start) / 1000
    if last_steps(folder) != {"train/loss": calls - 1}:
        raise RuntimeError(f"not everything was written: {last_steps(folder)}")
    print(json.dumps({"calls": spent, "drain": drain}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
