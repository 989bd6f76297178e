from __future__ import annotations

import os
import pickle
import resource
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch

from epochal.errors import CheckpointError
from epochal.spec.job import Keep, Objective
from epochal.training import checkpoint, tensors
from epochal.training.checkpoint import Manifest
from epochal.training.saver import Saver, Snapshot
from epochal.training.worker import Worker


def manifest(step: int, **fields: Any) -> Manifest:
    return Manifest(**{"step": step, "epoch": 0, "world_size": 1, "strategy": "ddp", **fields})


def save(job: Path, step: int, keep: Keep | None = None, **fields: Any) -> Path:
    saver = Saver(job, Worker(), keep or Keep(latest=9), None)
    saver.start(Snapshot(manifest(step, **fields), {"model.weight": torch.arange(6.0)}, frozenset(), {}, best=False))
    (saved,) = saver.wait()
    return job / saved.path


def test_complete_checkpoint_can_be_verified_and_read(tmp_path: Path) -> None:
    path = save(tmp_path, 50, metrics={"val/loss": 0.5}, state={"patience": {"stale": 1}})
    assert path.name == "step-00000050"
    read = checkpoint.read(path)
    checkpoint.verify(path, read, read.files)
    assert set(read.files) == {file.name for file in path.iterdir()} - {"manifest.json"}
    assert read.state == {"patience": {"stale": 1}}
    target = {"model.weight": torch.zeros(6)}
    tensors.load(target, path)
    assert target["model.weight"].tolist() == [0, 1, 2, 3, 4, 5]


def test_why_it_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A file may not grow further: like a disk that is full, noticed in the middle of a tensor."""
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            tensors.save({"model.weight": torch.zeros(100_000)}, tmp_path, None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_one_that_cannot_be_written_leaves_the_room_it_took(tmp_path: Path) -> None:
    save(tmp_path, 3)
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(CheckpointError, match="File too large"):
            save(tmp_path, 6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]


def test_only_complete_ones_are_seen(tmp_path: Path) -> None:
    save(tmp_path, 3)
    folder = tmp_path / "checkpoints"
    half = folder / "step-00000006.tmp-abc"
    save(tmp_path, 6).rename(half)
    (folder / "step-00000009").mkdir()
    (folder / "notes.txt").write_text("a person's")
    assert checkpoint.steps(folder) == [3]
    checkpoint.clean(folder)
    assert not half.exists()
    assert (folder / "notes.txt").exists()


def test_interruption_before_the_rename_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 3)

    def die(self: Path, target: Path) -> None:
        raise OSError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", die)
        with pytest.raises(CheckpointError, match="the disk is gone"):
            save(tmp_path, 6, Keep(latest=1))
    assert checkpoint.steps(tmp_path / "checkpoints") == [3]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    path = save(tmp_path, 3, metrics={"val/loss": 1.0})
    save(tmp_path, 3, metrics={"val/loss": 2.0})
    assert checkpoint.read(path).metrics == {"val/loss": 2.0}
    assert [entry.name for entry in path.parent.iterdir()] == ["step-00000003"]


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata", "generators-00000.json"])
def test_changed_file_is_found(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 3)
    read = checkpoint.read(path)
    content = bytearray((path / name).read_bytes())
    content[0] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoint.verify(path, read, read.files)
    (path / name).unlink()
    with pytest.raises(CheckpointError, match="lacks"):
        checkpoint.verify(path, read, read.files)


def test_manifest_cannot_name_a_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    with pytest.raises(CheckpointError, match="lacks"):
        checkpoint.verify(tmp_path / "step-00000001", manifest(1, files={"../secret": "0"}), ["../secret"])


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1}', '{"format": 99, "step": 1}'])
def test_unsound_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError):
        checkpoint.read(tmp_path)


class Attack:
    def __reduce__(self) -> Any:
        return os.mkdir, ("was-run",)


def test_index_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path, 3)
    (path / ".metadata").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(CheckpointError, match="mkdir"):
        tensors.stored(path)
    assert not (tmp_path / "was-run").exists()


def test_index_that_is_no_pickle(tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    (path / ".metadata").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="cannot be read"):
        tensors.stored(path)


def test_values_that_are_no_tensors_are_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "other"
    tensors.save({"model.weight": Attack()}, path, None)  # type: ignore[dict-item]  # what torch would unpickle
    with pytest.raises(CheckpointError):
        tensors.load({"model.weight": torch.zeros(3)}, path)


def test_misfit_names_the_tensors(tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    with pytest.raises(CheckpointError) as raised:
        tensors.load({"model.weight": torch.zeros(2), "model.bias": torch.zeros(3)}, path)
    assert "model.weight is (6,), not (2,)" in str(raised.value)
    assert "model.bias (3,) is missing" in str(raised.value)


def judged(step: int, accuracy: float, validated: int | None = None) -> Manifest:
    return manifest(step, metrics={"val/accuracy": accuracy}, validated=step if validated is None else validated)


def test_newest_and_best_are_kept() -> None:
    most = Objective(metric="val/accuracy", mode="max")
    manifests = [judged(1, 0.9), judged(2, 0.95), judged(3, 0.95), judged(4, 0.5), judged(5, 0.6)]
    assert checkpoint.superfluous(manifests, Keep(latest=1, best=1), most) == [4, 3, 1]
    assert checkpoint.superfluous(manifests, Keep(latest=2, best=2), most) == [1]
    assert checkpoint.superfluous(manifests, Keep(latest=1, best=0), most) == [4, 3, 2, 1]
    assert checkpoint.superfluous(manifests, Keep(latest=1, best=1), None) == [4, 3, 2, 1]
    least = Objective(metric="val/accuracy", mode="min")
    assert checkpoint.superfluous(manifests, Keep(latest=1, best=1), least) == [3, 2, 1]


def test_metrics_of_an_earlier_step_make_no_checkpoint_best() -> None:
    most = Objective(metric="val/accuracy", mode="max")
    manifests = [judged(1, 0.9), judged(2, 0.99, validated=1), judged(3, float("nan")), judged(4, 0.1)]
    assert checkpoint.superfluous(manifests, Keep(latest=1, best=1), most) == [3, 2]


def test_pruning_deletes(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step, Keep(latest=2))
    assert checkpoint.steps(tmp_path / "checkpoints") == [3, 2]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


def test_the_one_just_saved_is_not_pruned(tmp_path: Path) -> None:
    """Although a newer one is there, which the training did not go on from."""
    for step in (7, 8, 5):
        save(tmp_path, step, Keep(latest=1))
    assert checkpoint.steps(tmp_path / "checkpoints") == [8, 5]


class OlderPython(pickle.Pickler):
    """Pickles members of an enum as Python 3.11.0 to 3.11.3 do, Debian 12's among them."""

    def reducer_override(self, value: Any) -> Any:
        return (getattr, (type(value), value.name)) if isinstance(value, Enum) else NotImplemented


def test_index_of_an_older_python_is_read(tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    index = pickle.loads((path / ".metadata").read_bytes())
    with (path / ".metadata").open("wb") as file:
        OlderPython(file).dump(index)
    assert b"getattr" in (path / ".metadata").read_bytes()
    target = {"model.weight": torch.zeros(6)}
    tensors.load(target, path)
    assert target["model.weight"].tolist() == [0, 1, 2, 3, 4, 5]


def test_index_reads_no_attribute_of_anything_else(tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    (path / ".metadata").write_bytes(b"cbuiltins\ngetattr\n(ctorch\nSize\nS'__init__'\ntR.")
    with pytest.raises(CheckpointError, match="'__init__'"):
        tensors.load({"model.weight": torch.zeros(6)}, path)
