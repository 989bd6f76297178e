"""What trials of a sweep have saved, and how one is given the state of another (PBT)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from epochal.sweeps.trials import Copy
from epochal.tracking.trial_runs import trial_folder
from epochal.training import checkpoint


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
    shutil.copytree(source / name, draft / name, copy_function=_link)
    (draft / mark).touch()
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
