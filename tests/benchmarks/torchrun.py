"""torchrun as a contender."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contender import BIN, PEERS, WORKERS, Contender, free_port


def start(
    folder: Path, env: Mapping[str, str], max_restarts: int = 0, workers: int = WORKERS, **options: Any
) -> Contender:
    """Plain DDP with ``options`` (those of ``peers/digits.py``)."""
    return launch(folder, env, PEERS / "torchrun_train.py", options, max_restarts, workers)


def launch(
    folder: Path,
    env: Mapping[str, str],
    script: Path,
    options: Mapping[str, Any],
    max_restarts: int = 0,
    workers: int = WORKERS,
) -> Contender:
    """``torchrun`` of a script that takes its options as JSON."""
    launcher = ["--nproc-per-node", workers, "--master-port", free_port(), "--max-restarts", max_restarts]
    command: list[str | Path] = [BIN / "torchrun", *(str(part) for part in launcher), script, json.dumps(options)]
    return Contender(command, folder, env)
