"""Measure what Epochal promises beside its peers: ``python tests/benchmarks/run.py [SECTION...]``.

Every raw figure is printed, then the table of promises. The exit code says whether everything could be measured, not
whether every promise was kept: that depends on the machine, and the table says it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

import measure

SECTIONS = {
    "startup": "startup",
    "accept": "accept",
    "scale": "scale",
    "metric-cost": "metric_cost",
    "memory": "memory",
    "first-step": "first_step",
    "recovery": "recovery",
    "checkpoint": "checkpoint_cost",
    "step-time": "step_time",
    "real-data": "real_data",
    "sweep": "sweep_speed",
    "packs": "packs",
}
"""Each names a module with ``measure(rounds, quick) -> Section``."""

ELSEWHERE = {"kubernetes": "on_kubernetes"}
"""Sections that need more than this machine: only where they are named."""


def main() -> int:
    options = _options()
    results: list[dict[str, Any]] = []
    broken = []
    for name in options.sections or SECTIONS:
        measure.progress(name)
        try:
            section = import_module((SECTIONS | ELSEWHERE)[name]).measure(options.rounds, options.quick)
        except Exception:
            traceback.print_exc()
            broken.append(name)
            continue
        measure.show(section)
        broken += [f"{name}: {what}" for what in (*measure.failed, *section.unmeasured())]
        measure.failed.clear()
        results.append(section.to_dict())
        _write(options.json, results, broken)
    _write(options.json, results, broken)
    if broken:
        print(f"could not be measured: {', '.join(broken)}", file=sys.stderr)
    return 1 if broken else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "sections",
        nargs="*",
        metavar="SECTION",
        help=f"of {', '.join(SECTIONS)}; default: all; or {', '.join(ELSEWHERE)}",
    )
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: to see that it runs, not for figures")
    parser.add_argument("--rounds", type=int, help="repetitions of every contender (default 5, with --quick 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there too")
    options = parser.parse_args()
    if unknown := set(options.sections) - set(known := SECTIONS | ELSEWHERE):
        parser.error(f"no such section: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    options.rounds = options.rounds or (2 if options.quick else 5)
    return options


def _write(path: Path | None, results: list[dict[str, Any]], broken: list[str]) -> None:
    if path is None:
        return
    found = {"machine": _machine(), "sections": results, "broken": broken}
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(json.dumps(found, indent=1) + "\n")
    fresh.replace(path)


def _machine() -> dict[str, Any]:
    from importlib.metadata import version

    packages = {name: version(name) for name in ("epochal", "torch", "ray", "mlflow")}
    return {"cpus": os.cpu_count(), "platform": platform.platform(), "python": platform.python_version()} | packages


if __name__ == "__main__":
    sys.exit(main())
