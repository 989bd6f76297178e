"""Epochal's side of ``metric_cost``: ``python spool_cost.py CALLS`` prints each ``SpoolWriter.log``'s microseconds."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from epochal.tracking.spool import SpoolWriter


def main(calls: int) -> None:
    writer = SpoolWriter(Path.cwd(), "cost")
    spent = []
    for step in range(calls):
        start = time.perf_counter_ns()
        writer.log(step, {"train/loss": 0.5 / (step + 1)})
        spent.append((time.perf_counter_ns() - start) / 1000)
    start = time.perf_counter_ns()
    writer.flush()
    print(json.dumps({"calls": spent, "drain": (time.perf_counter_ns() - start) / 1000}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
