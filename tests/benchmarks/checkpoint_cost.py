"""What a checkpoint adds to the steps: Epochal's, which is written meanwhile, beside one that the steps wait for.

A perceptron of 8.5 million parameters: 100 MB with AdamW's state. Of each contender one saves every so many steps and
one does not; the difference of their means, times that many steps, is what a checkpoint costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torchrun
from contender import WORKERS, Contender, workspace
from measure import Promise, Section, interleave
from steps import Worker, running, wait_for

HIDDEN = (2048, 2048, 2048)
EVERY = 20
MANY = 1_000_000
LOOP = Path(__file__).parent / "epochal_loop.py"


WAYS = ("epochal", "epochal, waited for", "torch.save")
CORES = {"a core free": 1, "no core free": WORKERS}
"""How many workers, of a core each, train on this machine."""


def measure(rounds: int, quick: bool) -> Section:
    windows = 2 if quick else 6
    contenders = {f"{way}, {cores}": partial(_added, way, cores, windows) for cores in CORES for way in WAYS}
    raw = interleave(rounds, contenders)
    promises = []
    for cores in CORES:
        ours, waited, plain = (f"{way}, {cores}" for way in WAYS)
        limit = 0.1 if cores == "a core free" else None
        promises += [
            Promise(f"{cores}: a checkpoint, beside itself waited for", ours, waited, limit),
            Promise("  beside a plain torch.save", ours, plain),
            Promise("  a step without one", f"{ours}, a step", f"{plain}, a step"),
        ]
    note = (
        f"a checkpoint every {EVERY} steps, the mean over {windows} of them. A core free: one worker, on one thread,\n"
        "as where GPUs compute. No core free: two workers need both wholly, and what is written takes them from the\n"
        "steps. torch.save does not wait for the disk and writes no digest."
    )
    return Section("checkpoint", "seconds", raw, promises, [note])


def _added(way: str, cores: str, windows: int) -> Mapping[str, float]:
    with_one, without = (_step_seconds(way, CORES[cores], windows, saves) for saves in (True, False))
    return {f"{way}, {cores}": (with_one - without) * EVERY, f"{way}, {cores}, a step": without}


def _step_seconds(way: str, workers: int, windows: int, saves: bool) -> float:
    """The mean, from the first checkpoint on: that one pays for what is made once."""
    with workspace() as (folder, env), _started(way, workers, folder, env, saves) as contender:
        last = EVERY * (windows + 1) + 1
        find = partial(_of_rank_0_at, contender.steps, last)
        worker = wait_for(f"step {last}", find, contender.alive)
        at = {step.number: step.at for step in worker.steps()}
    return (at[last] - at[EVERY + 1]) / (last - EVERY - 1)


def _of_rank_0_at(folder: Path, step: int) -> Worker | None:
    worker = running(folder, rank=0)
    return worker if worker is not None and worker.newest.number >= step else None


def _started(way: str, workers: int, folder: Path, env: Mapping[str, str], saves: bool) -> Contender:
    options: dict[str, Any] = {"steps": MANY, "hidden": HIDDEN}
    saving: dict[str, Any] = {"checkpoint_every": EVERY} if saves else {}
    if way != "torch.save":
        waits = {"waits": True} if way == "epochal, waited for" else {}
        return torchrun.launch(folder, env, LOOP, options | saving | waits, workers=workers)
    (folder / "checkpoints").mkdir()
    saving |= {"checkpoints": str(folder / "checkpoints")} if saves else {}
    return torchrun.start(folder, env, workers=workers, **options, **saving)
