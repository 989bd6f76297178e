"""Go on from a checkpoint: the newest one that every worker finds sound."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from epochal.errors import CheckpointError, CheckpointFormatError
from epochal.training import checkpoint, seeding
from epochal.training.checkpoint import Manifest
from epochal.training.control import Control, Noted, SetAside
from epochal.training.parallel import Strategy
from epochal.training.saver import generators_of
from epochal.training.worker import Worker


def newest_sound(
    folder: Path, last_step: int | None, strategy: Strategy, control: Control
) -> tuple[Path, Manifest] | None:
    """The newest complete checkpoint whose digests are right, and its manifest; None where there is none.

    One beyond ``last_step`` is removed and reported. A trial of a sweep leaves it where the power fails before the
    disk has that the trial was to go on: taken for the state at ``last_step``, it would give that another value.

    Each worker checks a part of the files, and all of them agree. A damaged checkpoint is set aside and reported:
    left where it is it would count as the newest, and those saved after it as superfluous.

    Raises:
        CheckpointFormatError: the newest one is sound perhaps, but another version of Epochal wrote it. To go on from
            an older one would lose what it holds, without a word.
    """
    worker = strategy.worker
    while (step := _newest(folder, strategy)) >= 0:
        path = folder / checkpoint.name_of(step)
        if last_step is not None and step > last_step:
            if worker.is_first:
                checkpoint.remove(path)
                control.report(Noted(f"the checkpoint of step {step} is removed: this is to end at step {last_step}"))
            continue
        damage = _damage(path, worker)
        # Agreed on before anyone goes on: a worker that took another checkpoint would train from other weights.
        found = torch.zeros(worker.world_size)
        found[worker.rank] = bool(damage)
        ranks = strategy.sum(found).nonzero().flatten().tolist()
        if not ranks:
            return path, checkpoint.read(path)
        aside = checkpoint.set_aside(path) if worker.is_first else checkpoint.aside(path)
        if worker.rank == ranks[0]:
            control.report(SetAside(step, aside.relative_to(folder.parent).as_posix(), damage))
    return None


def _damage(path: Path, worker: Worker) -> str:
    """What is wrong with this worker's part of a checkpoint's files; empty where nothing is."""
    try:
        manifest = checkpoint.read(path)
        checkpoint.verify(path, manifest, sorted(manifest.files)[worker.rank :: worker.world_size])
    except CheckpointFormatError:
        raise
    except CheckpointError as error:
        return str(error)
    return ""


def _newest(folder: Path, strategy: Strategy) -> int:
    """The newest step in ``folder`` as the first worker sees it; -1 for none."""
    candidates = checkpoint.steps(folder) if strategy.worker.is_first else []
    return int(strategy.broadcast(torch.tensor([candidates[0] if candidates else -1])).item())


def source_states(path: Path, manifest: Manifest) -> list[Mapping[str, Any]]:
    """What the sources of all workers of then kept; empty of older checkpoints."""
    files = [path / generators_of(rank) for rank in range(manifest.world_size)]
    return [json.loads(file.read_text()).get("source", {}) for file in files]


def restore_generators(path: Path, manifest: Manifest, worker: Worker) -> None:
    """Set this worker's random generators; a worker that was not there before keeps those it has."""
    if worker.rank < manifest.world_size:
        seeding.restore(json.loads((path / generators_of(worker.rank)).read_text()), worker.device)
