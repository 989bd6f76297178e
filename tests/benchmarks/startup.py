"""What a command line costs before it does anything: ``--help``, in seconds."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from contender import BIN, workspace
from measure import Measurement, Promise, Section, interleave

COMMANDS: dict[str, list[str | Path]] = {
    "epochal --help": [BIN / "epochal", "--help"],
    "python -c pass": [sys.executable, "-c", "pass"],
    "ray --help": [BIN / "ray", "--help"],
}


def measure(rounds: int, quick: bool) -> Section:
    with workspace() as (_, environment):
        env = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
        measurements = {name: _timed(name, command, env) for name, command in COMMANDS.items()}
        interleave(1, measurements)  # the first run of each reads its files from the disk
        raw = interleave(max(3 if quick else 11, 2 * rounds), measurements)
    return Section(
        "startup",
        "seconds",
        raw,
        [
            Promise("--help, beside bare Python", "epochal --help", "python -c pass", 3),
            Promise("--help, beside Ray's", "epochal --help", "ray --help", 0.02),
        ],
    )


def _timed(name: str, command: list[str | Path], env: Mapping[str, str]) -> Measurement:
    def run() -> dict[str, float]:
        start = time.perf_counter()
        subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
        return {name: time.perf_counter() - start}

    return run
