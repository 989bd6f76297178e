"""Epochal as a contender: ``epochal run`` of the quickstart's model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contender import BIN, WORKERS, Contender


def start(folder: Path, env: Mapping[str, str], **changes: Any) -> Contender:
    """``epochal run`` in a fresh process, nothing running before."""
    return Contender([BIN / "epochal", "run", write_spec(folder, **changes)], folder, env)


def write_spec(folder: Path, **changes: Any) -> Path:
    """``job_spec`` as a file: JSON is YAML."""
    path = folder / "job.yaml"
    path.write_text(json.dumps(job_spec(**changes), indent=1))
    return path


def job_spec(
    steps: int = 30,
    global_batch_size: int = 64,
    checkpoint_every: int | None = None,
    hidden: Sequence[int] = (),
    workers: int = WORKERS,
) -> dict[str, Any]:
    """The training in ``peers/digits.py`` as a job spec.

    It validates and, without ``checkpoint_every``, saves at the end alone, as the peers do neither in between.
    """
    cnn = {"name": "cnn", "params": {"channels": [32, 64], "activation": "gelu", "pool": "avg"}}
    return {
        "version": 1,
        "name": "digits-cnn",
        "model": {"name": "mlp", "params": {"hidden": list(hidden)}} if hidden else cnn,
        "data": {"name": "digits"},
        "train": {
            "steps": steps,
            "global_batch_size": global_batch_size,
            "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01},
            "validate_every": f"{steps}steps",
        },
        "resources": {"workers": workers, "cpus_per_worker": 1},
        "checkpoint": {"every": f"{checkpoint_every or steps}steps"},
    }
