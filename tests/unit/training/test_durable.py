"""What is on the disk before something that relies on it is, so that a loss of power takes both or neither."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pytest

import training_pieces as pieces
from epochal.tracking.metric_spool import MetricSpool, read_lines
from epochal.training.control import NullControl
from epochal.training.fit import fit
from epochal.training.worker import Worker


class Happened(NamedTuple):
    what: str
    path: Path
    size: int


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> list[Happened]:
    """What this process waits for to be on the disk, and what it renames, in order."""
    happened: list[Happened] = []
    fsync = os.fsync

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        happened.append(Happened("sync", path, os.fstat(descriptor).st_size))

    monkeypatch.setattr(os, "fsync", synced)
    for name in ("rename", "replace"):
        move = getattr(os, name)

        def moved(source: Path, target: Path, move: object = move) -> None:
            assert callable(move)
            move(source, target)
            happened.append(Happened("move", Path(target), 0))

        monkeypatch.setattr(os, name, moved)
    return happened


def test_a_curve_is_on_the_disk_before_its_checkpoint_and_the_weights_before_the_end(
    tmp_path: Path, disk: list[Happened]
) -> None:
    job = tmp_path / "jobs" / "one"
    recorder = MetricSpool(job, "rank-0")
    spec = pieces.spec(epochs=2, checkpoint__every="2steps")
    result = fit(pieces.setup(spec), Worker(), job, recorder, NullControl())
    recorder.close()

    steps = {line.end: point.step for line in read_lines(recorder.path) for point in line.points}
    names = {f"step-{step:08d}": step for step in (2, 4, 6, 8)}
    published = [index for index, one in enumerate(disk) if one.path.name in names and one.what == "move"]
    assert [disk[index].path.name for index in published] == list(names)
    for index in published:
        size = max(one.size for one in disk[:index] if one.path == recorder.path)
        # Perhaps of later steps too: the training goes on while the checkpoint is written.
        assert max(step for end, step in steps.items() if end <= size) >= names[disk[index].path.name]
        assert {recorder.path.parent, job, job.parent} <= {one.path for one in disk[:index] if one.what == "sync"}
        after = [one.path for one in disk[index + 1 : index + 4] if one.what == "sync"]
        assert after == [job / "checkpoints", job, job.parent]
    assert disk[-4].path == recorder.path
    assert disk[-4].size == recorder.path.stat().st_size

    weights = job / (result.weights or "")
    moved = next(index for index, one in enumerate(disk) if one.path == weights)
    assert disk[moved - 1].what == "sync"
    assert disk[moved - 1].size == weights.stat().st_size
    assert [one.path for one in disk[moved + 1 : moved + 4]] == [weights.parent, job, job.parent]
