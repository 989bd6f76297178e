"""Writes checkpoints beside the training: steps go on while one is written."""

from __future__ import annotations

import json
import shutil
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from epochal.errors import CheckpointError, NonFiniteStateError
from epochal.spec.job import Keep, Objective
from epochal.tracking.recorder import NullRecorder, Recorder
from epochal.training import checkpoint, tensors
from epochal.training.checkpoint import Manifest
from epochal.training.control import Saved
from epochal.training.process_group import side_group
from epochal.training.tensors import Tensors
from epochal.training.worker import Worker

ABANDON_SECONDS = 20.0
"""Most checkpoints are complete by then, and the gang's place is not kept for one whose disk hangs."""
LOOK_SECONDS = 1.0

T = TypeVar("T")


@dataclass(frozen=True)
class Snapshot:
    """A copy of what one worker writes of a checkpoint; ``tensors`` and ``generators`` (with where its source is) are
    its own, the rest is the same on all.

    ``trained``: the model's tensors that have to be finite, beside the optimizer's.
    """

    manifest: Manifest
    tensors: Tensors
    trained: frozenset[str]
    generators: dict[str, Any]
    best: bool


class Saver:
    """Saves snapshots one at a time, on a thread of its own and over the workers' side group.

    Every worker has one and gives it its part of the same snapshots in the same order. ``progress`` is told of every
    stage that is done (True), and while a caller waits of files that grow (False): nothing where the disk hangs, or
    another worker. What the first worker's ``recorder`` has flushed is on the disk before a checkpoint is.
    """

    def __init__(
        self,
        job: Path,
        worker: Worker,
        keep: Keep,
        objective: Objective | None,
        progress: Callable[[bool], None] = lambda stage_done: None,
        recorder: Recorder | None = None,
    ) -> None:
        self._folder = job / checkpoint.FOLDER
        self._worker = worker
        self._keep = keep
        self._objective = objective
        self._progress = progress
        self._recorder = recorder or NullRecorder()
        self._writing: Path | None = None
        self._group: dist.ProcessGroup | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._done: list[Saved] = []

    def start(self, snapshot: Snapshot) -> None:
        """Begin to save. Nothing is being saved any more: see ``wait``."""
        if self._worker.world_size > 1 and self._group is None:
            self._group = side_group()
        self._thread = threading.Thread(target=self._run, args=(snapshot,), name="checkpoint", daemon=True)
        self._thread.start()

    def finished(self) -> list[Saved]:
        """What was completed since the last call; empty on all workers but the first.

        Raises:
            CheckpointError: one could not be written.
        """
        # In this order: a thread that ends in between has left its error before ``not_finite`` is asked.
        if (self._thread is not None and self._thread.is_alive()) or self.not_finite:
            return []
        return self._taken()

    @property
    def not_finite(self) -> bool:
        """Whether one was not written because of what it would hold. ``wait`` raises it: workers learn of it one after
        another, and the first to raise it would leave the others waiting in their next step."""
        return isinstance(self._error, NonFiniteStateError)

    def _taken(self) -> list[Saved]:
        if self._error is not None:
            error, self._error = self._error, None
            if isinstance(error, NonFiniteStateError):
                raise error
            raise CheckpointError(f"a checkpoint could not be written: {error}") from error
        done, self._done = self._done, []
        return done

    def wait(self) -> list[Saved]:
        """Until nothing is being saved; then as ``finished``.

        Raises:
            CheckpointError
            NonFiniteStateError: on every worker, the same.
        """
        size = 0
        while self._thread is not None and self._thread.is_alive():
            self._thread.join(LOOK_SECONDS)
            if (now := _size(self._writing)) != size:
                size = now
                self._progress(False)
        return self._taken()

    def abandon(self) -> None:
        """Give the one being saved a little time, because the training has failed; whatever becomes of it."""
        if self._thread is not None:
            self._thread.join(ABANDON_SECONDS)

    def _run(self, snapshot: Snapshot) -> None:
        try:
            self._save(snapshot)
        except BaseException as error:  # raised where somebody sees it: by the thread that trains
            self._error = error
            if self._writing is not None:  # on a full disk the ledger and the next attempt need the room
                shutil.rmtree(self._writing, ignore_errors=True)

    def _save(self, snapshot: Snapshot) -> None:
        self._raise_unless_finite(snapshot)
        path = self._folder / checkpoint.name_of(snapshot.manifest.step)
        temporary = path.with_name(f"{path.name}.tmp-{self._token()}")
        temporary.mkdir(parents=True, exist_ok=True)
        self._writing = temporary
        self._progress(True)
        tensors.save(snapshot.tensors, temporary, self._group, written=partial(self._progress, True))
        mine = generators_of(self._worker.rank)
        checkpoint.write(temporary / mine, json.dumps(snapshot.generators).encode())
        written = [path.name for path in temporary.glob(f"__{self._worker.rank}_*.distcp")]
        written += [mine, *([".metadata"] if self._worker.is_first else [])]
        digests = {name: checkpoint.digest(temporary / name) for name in written}
        self._progress(True)
        files = {name: digest for part in self._gather(digests) for name, digest in part.items()}
        if self._worker.is_first:
            self._recorder.sync()
            sealed = checkpoint.publish(temporary, path, replace(snapshot.manifest, files=files))
            relative = path.relative_to(self._folder.parent).as_posix()
            self._done.append(
                Saved(snapshot.manifest.step, relative, sealed, dict(snapshot.manifest.metrics), snapshot.best)
            )
            checkpoint.prune(self._folder, self._keep, self._objective, snapshot.manifest.step)
        self._progress(True)

    def _token(self) -> str:
        """A new word that all workers agree on: a folder that a dying attempt still writes to is never shared."""
        token = [uuid.uuid4().hex[:12]]
        if self._group is not None:
            dist.broadcast_object_list(token, src=0, group=self._group)
        return token[0]

    def _raise_unless_finite(self, snapshot: Snapshot) -> None:
        """Here and not between two steps, which would wait for it."""
        found = self._gather(tensors.first_not_finite(snapshot.tensors, snapshot.trained))
        if (rank := next((rank for rank, name in enumerate(found) if name), None)) is not None:
            raise NonFiniteStateError(snapshot.manifest.step, rank, found[rank])

    def _gather(self, mine: T) -> list[T]:
        """Every worker's, by rank."""
        if self._group is None:
            return [mine]
        everyone: list[Any] = [None] * self._worker.world_size
        dist.all_gather_object(everyone, mine, group=self._group)
        return everyone


def _size(folder: Path | None) -> int:
    """In bytes, of the files in it; they may go meanwhile."""
    size = 0
    with suppress(OSError):
        for file in folder.iterdir() if folder is not None else ():
            size += file.stat().st_size
    return size


def generators_of(rank: int) -> str:
    """The file with the random generators of one worker, and where its source is."""
    return f"generators-{rank:05d}.json"
