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
from contender import Contender, workspace
from measure import Promise, Section, interleave
from steps import Worker, running, wait_for

HIDDEN = (2048, 2048, 2048)
EVERY = 20
MANY = 1_000_000
LOOP = Path(__file__).parent / "epochal_loop.py"


def measure(rounds: int, quick: bool) -> Section:
    windows = 2 if quick else 6
    raw = interleave(rounds, {who: partial(_added, who, windows) for who in ("epochal", "synchronous")})
    promises = [
        Promise("a checkpoint, beside a synchronous one", "epochal", "synchronous", 0.1),
        Promise("seconds of steps that it adds", "epochal"),
        Promise("a step without one", "epochal, a step", "synchronous, a step"),
    ]
    note = (
        f"both: rank 0 and rank 1 on one core each, a checkpoint every {EVERY} steps, the mean over {windows} of them"
    )
    return Section("checkpoint", "seconds", raw, promises, [note])


def _added(who: str, windows: int) -> Mapping[str, float]:
    with_one, without = (_step_seconds(who, windows, saves) for saves in (True, False))
    return {who: (with_one - without) * EVERY, f"{who}, a step": without}


def _step_seconds(who: str, windows: int, saves: bool) -> float:
    """The mean, from the first checkpoint on: that one pays for what is made once."""
    with workspace() as (folder, env), _started(who, folder, env, saves) as contender:
        last = EVERY * (windows + 1) + 1
        find = partial(_of_rank_0_at, contender.steps, last)
        worker = wait_for(f"step {last}", find, contender.alive)
        at = {step.number: step.at for step in worker.steps()}
    return (at[last] - at[EVERY + 1]) / (last - EVERY - 1)


def _of_rank_0_at(folder: Path, step: int) -> Worker | None:
    worker = running(folder, rank=0)
    return worker if worker is not None and worker.newest.number >= step else None


def _started(who: str, folder: Path, env: Mapping[str, str], saves: bool) -> Contender:
    options: dict[str, Any] = {"steps": MANY, "hidden": HIDDEN}
    if who == "epochal":
        return torchrun.launch(folder, env, LOOP, options | ({"checkpoint_every": EVERY} if saves else {}))
    (folder / "checkpoints").mkdir()
    saving = {"checkpoints": str(folder / "checkpoints"), "checkpoint_every": EVERY} if saves else {}
    return torchrun.start(folder, env, **options, **saving)
