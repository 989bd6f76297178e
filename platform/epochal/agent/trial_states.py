"""What trials of a sweep train and save, and how one is given the state of another (PBT)."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from epochal.engine.payload import TrialSegment
from epochal.files import leads_out
from epochal.spec.job import JobSpec
from epochal.spec.tree import placed
from epochal.sweeps.ranking import full_length
from epochal.sweeps.trials import Copy, Run, Trial, TrialState
from epochal.tracking.desired_run import model_folder
from epochal.tracking.trial_runs import trial_folder
from epochal.training import checkpoint

EVERY = "60s"
"""How often a trial is saved within a segment, where the spec has the default: a trial of seconds is done sooner."""


def segment_of(run: Run, sweep: JobSpec, stored: Mapping[str, Any], best: Trial | None) -> TrialSegment:
    """What workers are given to train. ``stored`` is the ``sweep`` as the ledger has it, ``best`` its best trial."""
    spec = placed(stored, run.point)
    every = (spec.get("checkpoint") or {}).get("every", "1ep")
    # Two: a copy may be wanted of the state before the newest (PBT).
    spec["checkpoint"] = {"every": EVERY if every == "1ep" else every, "keep": {"latest": 2, "best": 0}}
    whole = run.until >= full_length(sweep)
    return TrialSegment(
        trial=run.trial,
        folder=trial_folder(Path(), run.trial).as_posix(),
        spec=spec,
        until=None if whole else run.until,
        unit=sweep.train.unit,
        saved=not whole,
        beats=best.curve[-1].value if best is not None and best.state is TrialState.COMPLETED else None,
    )


def result_of(
    best: Trial, metrics: Mapping[str, float], step: int, stored: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """What a training's result has, of the best trial, whose model becomes that of the job in ``folder``: ``metrics``
    are those of its last validation, at ``step``. ``spec`` is what it was trained by; ``stored`` that of the sweep."""
    trained, own = (model_folder(one).parent for one in (trial_folder(folder, best.number), folder))
    if trained.is_dir():
        # Of the best one before the sweep was extended: what was packaged of that would stay beside other weights.
        shutil.rmtree(own, ignore_errors=True)
        copy_tree(trained, own, folder)
    return {
        "metrics": dict(metrics),
        "best": [best.curve[-1].value, step],
        "trial": best.number,
        "point": dict(best.point),
        "weights": str(own) if trained.is_dir() else None,
        "spec": placed(stored, best.point),
    }


def checkpoints(folder: Path, trial: int) -> Path:
    """The folder of a trial's checkpoints; ``folder`` is the job's."""
    return trial_folder(folder, trial) / checkpoint.FOLDER


def copy_state(folder: Path, command: Copy, step: int) -> None:
    """Carry the command out, by reference where the file system can: no byte is copied. Doing it again does nothing.

    ``step`` is that of the length in the command; 0 where it is not known, and the source's newest state is meant.
    """
    source, target = checkpoints(folder, command.source), checkpoints(folder, command.trial)
    mark = f"copy-of-{command.source}-at-{command.length!r}"
    if (target / mark).exists():
        return
    name = checkpoint.name_of(step or checkpoint.steps(source)[0])
    draft = target.with_name("copied")
    shutil.rmtree(draft, ignore_errors=True)
    # Links do: nothing writes to a checkpoint that is complete.
    copy_tree(source / name, draft / name, folder, _link)
    (draft / mark).touch()
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)


def copy_tree(source: Path, target: Path, folder: Path, copy: Callable[[str, str], object] = shutil.copy2) -> None:
    """Copy a folder of the job's, whose code may write to it; links stay links. ``folder`` is the job's.

    Raises:
        PermissionError: the source is a link to elsewhere, where the agent may read more than that code.
    """
    if leads_out(source, folder.parent):
        raise PermissionError(errno.EPERM, "a link leads out of the jobs' folders", str(source))
    shutil.copytree(source, target, symlinks=True, copy_function=copy, dirs_exist_ok=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
