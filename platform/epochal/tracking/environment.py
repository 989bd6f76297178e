"""What a run ran on: versions, hardware, command line, and the state of the code's git repository."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil

from epochal.files import write_atomically
from epochal.tracking.desired_run import artifacts_folder
from epochal.tracking.git import git_state
from epochal.tracking.software import describe_software
from epochal.tracking.system import open_gpus


def write_environment(folder: Path, code: Path | None = None, argv: Sequence[str] | None = None) -> dict[str, str]:
    """Write ``environment.json`` and ``git.diff`` into a job's artifacts; returns the tags for its run.

    ``code`` is the folder whose repository is meant; ``argv`` the command line, default this process's.
    """
    state = git_state(code) if code else None
    artifacts = artifacts_folder(folder)
    described = describe_environment(sys.argv if argv is None else argv)
    if state:
        described["git"] = state.described
    write_atomically(artifacts / "environment.json", json.dumps(described, indent=1))
    if state and state.diff:
        write_atomically(artifacts / "git.diff", state.diff)
    return state.tags if state else {}


def describe_environment(argv: Sequence[str]) -> dict[str, Any]:
    """Python, platform, packages, hardware and the command line, as JSON can hold them."""
    return {**describe_software(argv), "hardware": hardware()}


@lru_cache(maxsize=1)
def hardware() -> dict[str, Any]:
    """CPU, memory and GPUs of this node; sizes in bytes."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": [gpu.describe() for gpu in open_gpus()],
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
