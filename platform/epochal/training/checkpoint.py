"""Checkpoints in a job's folder: which are complete, which are sound, which are kept.

A checkpoint is a folder ``step-00000050``: the tensors, the random generators of each worker, and ``manifest.json``
with the digest of every other file. It is written under a temporary name, its manifest last, and then renamed: a
reader never sees half of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from epochal.errors import CheckpointError, CheckpointFormatError
from epochal.files import sync
from epochal.redaction import said
from epochal.spec.job import Keep, Objective
from epochal.training.best import Best

FOLDER = "checkpoints"
MANIFEST = "manifest.json"
FORMAT = 1
_NAME = re.compile(r"step-(\d{8,})")  # eight at the least, so that names sort by step


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint is. ``metrics`` are those of the newest validation, which was at the step ``validated``.

    ``state`` is everything that is not a tensor; ``files`` maps each file to its SHA-256.
    """

    step: int
    epoch: int
    world_size: int
    strategy: str
    metrics: dict[str, float] = field(default_factory=dict)
    validated: int = 0
    state: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, sort_keys=True)

    @classmethod
    def parse(cls, text: str, path: Path) -> Manifest:
        """The inverse of ``text``; ``path`` is that of the checkpoint."""
        fields = json.loads(text)
        written = fields.pop("format", None)
        if not isinstance(written, int):
            raise ValueError("it names no format")
        if written != FORMAT:
            raise CheckpointFormatError(str(path), written, FORMAT)
        return cls(**fields)


def name_of(step: int) -> str:
    return f"step-{step:08d}"


def steps(folder: Path) -> list[int]:
    """The steps of the complete checkpoints in ``folder``, newest first."""
    if not folder.is_dir():
        return []
    found = (_NAME.fullmatch(path.name) for path in folder.iterdir() if (path / MANIFEST).is_file())
    return sorted((int(match[1]) for match in found if match), reverse=True)


def read(path: Path) -> Manifest:
    """The manifest of a checkpoint.

    Raises:
        CheckpointFormatError: another version of Epochal wrote it.
        CheckpointError: there is none, or it is damaged.
        OSError: the disk does not give it now, which says nothing about it.
    """
    try:
        return Manifest.parse((path / MANIFEST).read_text(), path)
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} has no sound {MANIFEST}: {said(error)}") from error


def verify(path: Path, manifest: Manifest, names: Iterable[str]) -> None:
    """Compare the files called ``names`` with their digests.

    Raises:
        CheckpointError: one is missing or was changed.
    """
    for name in names:
        file = path / name
        if Path(name).name != name or not file.is_file():
            raise CheckpointError(f"{path} lacks its file {name}")
        if digest(file) != manifest.files[name]:
            raise CheckpointError(f"{file} is damaged: its digest is not that in {MANIFEST}")


def digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def publish(temporary: Path, path: Path, manifest: Manifest) -> str:
    """Complete a checkpoint: write its manifest and give it its name. Returns the digest of the manifest."""
    text = manifest.text().encode()
    write(temporary / MANIFEST, text)
    sync(temporary)
    if path.exists():
        # A checkpoint of this step was there but could not be used, otherwise training had gone on after it.
        path.rename(temporary.with_name(temporary.name + "-old"))
    temporary.rename(path)
    sync(path.parent, parents=2)  # at the first checkpoint the job's folder is new as well
    shutil.rmtree(temporary.with_name(temporary.name + "-old"), ignore_errors=True)
    return hashlib.sha256(text).hexdigest()


def write(file: Path, content: bytes) -> None:
    """Write and wait until it is on the disk."""
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def clean(folder: Path) -> None:
    """Remove what attempts that died left unfinished."""
    for path in folder.glob("step-*.tmp-*"):
        shutil.rmtree(path, ignore_errors=True)


def remove(path: Path) -> None:
    """Whole or not at all: what a process leaves that dies meanwhile is no checkpoint, and ``clean`` removes it."""
    # A new name: what network file systems keep of one before, while somebody reads it, would be in the way.
    doomed = path.with_name(f"{path.name}.tmp-pruned-{secrets.token_hex(4)}")
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def aside(path: Path) -> Path:
    """What a damaged checkpoint is called, so that nothing counts or deletes it any more."""
    return path.with_name(f"{path.name}.damaged")


def set_aside(path: Path) -> Path:
    """Rename a damaged checkpoint, for a person to look at; its new path. An older one of the same step makes way."""
    shutil.rmtree(aside(path), ignore_errors=True)
    path.rename(aside(path))
    sync(path.parent)
    return aside(path)


def superfluous(manifests: Iterable[Manifest], keep: Keep, objective: Objective | None) -> list[int]:
    """The steps whose checkpoints are neither among the newest nor among the best."""
    newest = sorted(manifests, key=lambda manifest: manifest.step, reverse=True)
    kept = {manifest.step for manifest in newest[: keep.latest]}
    if objective is not None:
        judged = [manifest for manifest in newest if _judged(manifest, objective)]
        sign = 1 if objective.mode == "min" else -1
        judged.sort(key=lambda manifest: (sign * manifest.metrics[objective.metric], manifest.step))
        kept |= {manifest.step for manifest in judged[: keep.best]}
    return [manifest.step for manifest in newest if manifest.step not in kept]


def _judged(manifest: Manifest, objective: Objective) -> bool:
    """Whether the metrics are those of the very weights in the checkpoint, and name a value that compares."""
    value = manifest.metrics.get(objective.metric)
    return manifest.validated == manifest.step and value is not None and Best.of(objective).beaten_by(value)


def prune(folder: Path, keep: Keep, objective: Objective | None, saved: int) -> None:
    """Delete the superfluous, but never the one just ``saved``. One without a sound manifest is left alone."""
    manifests = []
    for step in steps(folder):
        try:
            manifests.append(read(folder / name_of(step)))
        except (CheckpointError, OSError):
            continue
    for step in superfluous(manifests, keep, objective):
        if step == saved:
            continue
        remove(folder / name_of(step))
