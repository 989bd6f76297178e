"""What a training leaves behind: its weights, those of its best step, and how well they do on the test samples."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from epochal.errors import CheckpointError
from epochal.files import write_atomically
from epochal.redaction import named
from epochal.training import checkpoint, weights

if TYPE_CHECKING:
    from epochal.training.loop import Loop

TESTED = Path("model") / "test.json"
_NO_DIGEST = "00" * 32


def leave(loop: Loop) -> tuple[str, dict[str, float]]:
    """Write the weights; their path below the job's folder, and the ``test/`` metrics of them.

    A job that died after they were measured does not measure them again: a file beside the weights has their digest.
    """
    loop.control.tick("export", loop.state.step)
    best, chosen = _best(loop), loop.spec.train.export
    with loop.averaged():
        loop.pictures.draw("best" if loop.state.at_best else "last")
    with _exported(loop, best):
        file = weights.export(loop.strategy.module, loop.folder / weights.FILE, loop.worker.is_first)
        metrics = {} if not loop.setup.data.test or loop.segment.trial else _tested(loop, file)
    if best is not None and chosen == "last":  # nothing is done any more with those of the last step
        _go_back(loop, best)
        weights.export(loop.strategy.module, loop.folder / weights.BEST, loop.worker.is_first)
    loop.pictures.draw("best", with_model=False)  # where it was not gone back to
    loop.strategy.barrier()
    return file.relative_to(loop.folder).as_posix(), metrics


def _best(loop: Loop) -> Path | None:
    """The checkpoint of the objective's best step, the same on every worker; None where the last step is as good, there
    is no objective, or no sound checkpoint of it."""
    best, wanted = loop.state.best, loop.spec.checkpoint.keep.best and not loop.segment.trial
    if best is None or best.value is None or best.step == loop.state.step or not wanted:
        return None
    path = loop.folder / checkpoint.FOLDER / checkpoint.name_of(best.step)
    sound = torch.zeros(1)
    if loop.worker.is_first:
        try:
            manifest = checkpoint.read(path)
            checkpoint.verify(path, manifest, manifest.files)
            sound += 1
        except (CheckpointError, OSError) as error:
            loop.note(f"the weights of the best step, {best.step}, are not kept: {named(error)}")
    return path if loop.strategy.broadcast(sound).item() else None


@contextmanager
def _exported(loop: Loop, best: Path | None) -> Iterator[None]:
    """Within the block the model has the weights that are exported."""
    module, first, chosen = loop.strategy.module, loop.worker.is_first, loop.spec.train.export
    if loop.average or (best is not None and chosen == "best"):
        weights.export(module, loop.folder / weights.LAST, first)
    if best is not None and chosen == "best":
        _go_back(loop, best)
    if best is not None:
        _tell(loop, chosen)
    with loop.averaged() if best is None or chosen == "last" else nullcontext():
        yield


def _go_back(loop: Loop, best: Path) -> None:
    weights.put(loop.strategy.module, best)
    loop.pictures.draw("best")


def _tell(loop: Loop, chosen: str) -> None:
    best = loop.state.best
    assert best is not None
    assert best.value is not None
    seen = f"the weights of step {best.step}, where {best.metric} was {best.value:.5g}"
    last = f"of the last step, {loop.state.step}"
    if chosen == "best":
        loop.note(f"the model is exported with {seen}; {weights.LAST} has those {last}")
    else:
        loop.note(f"{weights.BEST} has {seen}; the model is exported with those {last}")


def _tested(loop: Loop, file: Path) -> dict[str, float]:
    """Measured once for these weights. What was measured is written down before it is recorded."""
    path, first = loop.folder / TESTED, loop.worker.is_first
    sent = torch.tensor([*bytes.fromhex(checkpoint.digest(file) if first else _NO_DIGEST)], dtype=torch.uint8)
    digest = bytes(loop.strategy.broadcast(sent).tolist()).hex()
    before = _measured(path)
    # Each looks for itself: what one worker wrote, storage that they share may not show all of them at once.
    unknown = torch.tensor([float(before.get("weights") != digest)])
    if loop.strategy.sum(unknown).item():
        measure = loop.measure("test")
        metrics = measure.run(lambda: loop.control.tick("export", loop.state.step), forgiving=True)
        for name, why in measure.failed.items():
            loop.note(f"test/{name} is left out: {why}")
        before = {"weights": digest, "step": loop.state.step, "timestamp": time.time(), "metrics": metrics}
        if first:
            write_atomically(path, json.dumps(before, indent=1))
    found: dict[str, float] = before["metrics"]
    loop.recorder.log(loop.state.step, found, before["timestamp"])
    return found


def _measured(path: Path) -> Mapping[str, Any]:
    """What an earlier attempt wrote; empty where that is nothing."""
    try:
        written = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return written if isinstance(written, dict) else {}
