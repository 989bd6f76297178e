"""Go on from a checkpoint: the newest one that every worker finds sound."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import torch

from epochal.errors import CheckpointError
from epochal.training import checkpoint, seeding
from epochal.training.checkpoint import Manifest
from epochal.training.parallel import Strategy
from epochal.training.saver import generators_of
from epochal.training.worker import Worker

_log = logging.getLogger(__name__)


def newest_sound(folder: Path, strategy: Strategy) -> tuple[Path, Manifest] | None:
    """The newest complete checkpoint whose digests are right, and its manifest; None where there is none.

    Each worker checks a part of the files, and all of them agree. A damaged checkpoint is passed over with a warning.
    """
    below = -1
    while (step := _newest(folder, below, strategy)) >= 0:
        path = folder / checkpoint.name_of(step)
        manifest = _sound(path, strategy)
        if manifest is not None:
            return path, manifest
        below = step
    return None


def _newest(folder: Path, below: int, strategy: Strategy) -> int:
    """The newest step in ``folder``, below another unless that is -1, as the first worker sees it; -1 for none."""
    candidates = [step for step in checkpoint.steps(folder) if below < 0 or step < below]
    return int(strategy.broadcast(torch.tensor([candidates[0] if candidates else -1])).item())


def _sound(path: Path, strategy: Strategy) -> Manifest | None:
    worker = strategy.worker
    manifest: Manifest | None = None
    try:
        manifest = checkpoint.read(path)
        checkpoint.verify(path, manifest, sorted(manifest.files)[worker.rank :: worker.world_size])
        damaged = 0.0
    except CheckpointError as error:
        _log.warning("checkpoint passed over: %s", error)
        damaged = 1.0
    if strategy.sum(torch.tensor([damaged])).item() > 0:
        return None
    return manifest


def restore_generators(path: Path, manifest: Manifest, worker: Worker) -> None:
    """Set this worker's random generators; a worker that was not there before keeps those it has."""
    if worker.rank < manifest.world_size:
        seeding.restore(json.loads((path / generators_of(worker.rank)).read_text()), worker.device)
