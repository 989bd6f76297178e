"""What a checkpoint adds to the steps: Epochal's, which is written meanwhile, beside one that the steps wait for.

A perceptron of 8.5 million parameters: 100 MB with AdamW's state. A checkpoint is written while the first half of the
steps up to the next one is taken, or before them; what that half takes longer than the second is its price.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torchrun
from contender import CORES, Contender, workspace
from measure import Promise, Section, interleave
from steps import Worker, running, wait_for

HIDDEN = (2048, 2048, 2048)
EVERY = 80
MANY = 1_000_000
LOOP = Path(__file__).parent / "epochal_loop.py"

WAITED = "epochal, waited for"
WAYS = ("epochal", WAITED, "torch.save")


def measure(rounds: int, quick: bool) -> Section:
    windows = 2 if quick else 7
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
        f"a checkpoint every {EVERY} steps, the median of {windows} of them. A core free: one worker, on one thread,\n"
        "as where GPUs compute. No core free: two workers need both wholly, and what is written takes them from the\n"
        "steps. torch.save does not wait for the disk and writes no digest."
    )
    return Section("checkpoint", "seconds", raw, promises, [note])


def _added(way: str, cores: str, windows: int) -> Mapping[str, float]:
    """The median over the windows from the second checkpoint on: the first pays for what is made once."""
    with workspace() as (folder, env), _started(way, CORES[cores], folder, env) as contender:
        last = EVERY * (windows + 2)
        find = partial(_of_rank_0_at, contender.steps, last)
        worker = wait_for(f"step {last}", find, contender.alive)
        at = {step.number: step.at for step in worker.steps()}
    first = [at[step + EVERY // 2] - at[step] for step in range(2 * EVERY, last, EVERY)]
    second = [at[step + EVERY] - at[step + EVERY // 2] for step in range(2 * EVERY, last, EVERY)]
    added = median(a - b for a, b in zip(first, second, strict=True))
    return {f"{way}, {cores}": added, f"{way}, {cores}, a step": median(second) / (EVERY // 2)}


def _of_rank_0_at(folder: Path, step: int) -> Worker | None:
    worker = running(folder, rank=0)
    return worker if worker is not None and worker.newest.number >= step else None


def _started(way: str, workers: int, folder: Path, env: Mapping[str, str]) -> Contender:
    options: dict[str, Any] = {"steps": MANY, "hidden": HIDDEN, "checkpoint_every": EVERY}
    if way == "torch.save":
        (folder / "checkpoints").mkdir()
        return torchrun.start(folder, env, workers=workers, checkpoints=str(folder / "checkpoints"), **options)
    return torchrun.launch(folder, env, LOOP, options | {"waits": way == WAITED, "workers": workers}, workers=workers)
