"""Milliseconds a step: Epochal with metrics every step beside plain DDP with none; and with MLflow down.

The mean holds what the median does not: whatever comes only every so many steps, such as the sum over a window of
metrics. A run's opening seconds, in which Epochal also prepares for a lost worker, are shown apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise, product
from pathlib import Path
from statistics import fmean, median
from typing import Any

import epochal_job
import mlflow_server
import steps
import torchrun
from contender import CORES, Contender, workspace
from measure import Measurement, Promise, Section, interleave

OPENING_SECONDS = 40.0
"""As long as spare workers, who get what the training leaves of two cores, need to become ready."""
NO_SPARES_SECONDS = 5.0
"""The opening of those that have none, and whose opening nothing is compared with."""
MANY = 1_000_000
BATCHES = (64, 512)
"""Global batch sizes: small steps, where what is around them shows, and longer ones."""
FIGURES = ("median", "mean")
MLFLOW = ("mlflow up", "mlflow refuses", "mlflow hangs")


def measure(rounds: int, quick: bool) -> Section:
    seconds = 3.0 if quick else 8.0
    raw: dict[str, list[float]] = {}
    for cores, batch in product(CORES, BATCHES):
        names = {who: f"{who}, {cores}, batch {batch}" for who in STARTS}
        options = {"workers": CORES[cores], "global_batch_size": batch}
        raw |= interleave(rounds, {names[who]: _measured(names[who], who, seconds, options) for who in STARTS})
    with workspace() as (folder, env), mlflow_server.running(folder, env) as server, mlflow_server.silent() as silent:
        uris = dict(zip(MLFLOW, (server, mlflow_server.refusing(), silent), strict=True))
        options = {"workers": 1, "global_batch_size": 64}
        raw |= interleave(rounds, {way: _measured(way, "epochal run", seconds, options, uris[way]) for way in MLFLOW})
    return Section("step-time", "milliseconds a step", raw, [*_beside_plain(), *_with_mlflow_down()], NOTES)


NOTES = [
    "epochal run: the whole platform on the same cores, agent, Ray and MLflow's SQLite file included; its loop alone:\n"
    "training.fit with a spool, started by torchrun. mlflow refuses: nothing listens; hangs: it takes connections and\n"
    f"never answers; a core free. The opening is the first {OPENING_SECONDS:g} s; all other figures come after it, or\n"
    f"after {NO_SPARES_SECONDS:g} s where nobody prepares for a lost worker.\n"
    "A core free: one worker, on one thread, as where GPUs compute. No core free: two workers need both wholly."
]


def _beside_plain() -> list[Promise]:
    found = []
    for cores, batch in product(CORES, BATCHES):
        run, loop, plain, usual = (f"{who}, {cores}, batch {batch}" for who in STARTS)
        limit = 1.02 if cores == "a core free" else None
        for figure in FIGURES:
            found += [
                Promise(f"{cores}, batch {batch}, {figure}", f"{run}, {figure}", f"{plain}, {figure}", limit),
                Promise("  its loop alone under torchrun", f"{loop}, {figure}", f"{plain}, {figure}", 1.02),
                Promise("  beside plain DDP with torch's DataLoader", f"{run}, {figure}", f"{usual}, {figure}"),
            ]
        found.append(Promise(f"{cores}, batch {batch}, opening's mean", f"{run}, opening", f"{plain}, opening"))
    return found


def _with_mlflow_down() -> list[Promise]:
    up, *down = MLFLOW
    return [
        Promise(f"{way}, beside up, {figure}", f"{way}, {figure}", f"{up}, {figure}", 1.02)
        for way, figure in product(down, FIGURES)
    ]


def _epochal_loop(folder: Path, env: Mapping[str, str], workers: int, **options: Any) -> Contender:
    script = Path(__file__).parent / "epochal_loop.py"
    return torchrun.launch(folder, env, script, options | {"workers": workers}, workers=workers)


def _plain_loader(folder: Path, env: Mapping[str, str], **options: Any) -> Contender:
    return torchrun.start(folder, env, loader="dataloader", **options)


STARTS: dict[str, Callable[..., Contender]] = {
    "epochal run": epochal_job.start,
    "epochal loop": _epochal_loop,
    "plain": torchrun.start,
    "plain DataLoader": _plain_loader,
}


def _measured(
    name: str, who: str, seconds: float, options: Mapping[str, int], tracking_uri: str | None = None
) -> Measurement:
    def run() -> dict[str, float]:
        with workspace() as (folder, env):
            tracked = {} if tracking_uri is None else {"MLFLOW_TRACKING_URI": tracking_uri}
            first = OPENING_SECONDS if who in ("epochal run", "plain") else NO_SPARES_SECONDS
            with STARTS[who](folder, env | tracked, steps=MANY, **options) as contender:
                contender.train_for(first + seconds)
                opening, rest = _milliseconds(contender, first)
        return {f"{name}, median": median(rest), f"{name}, mean": fmean(rest), f"{name}, opening": fmean(opening)}

    return run


def _milliseconds(contender: Contender, first: float) -> tuple[list[float], list[float]]:
    """Between the ends of rank 0's steps: those of the ``first`` seconds, and those after them."""
    worker = steps.running(contender.steps, rank=0)
    if worker is None:
        raise RuntimeError("rank 0 took no step")
    taken = worker.steps()
    end = taken[0].at + first
    opening = [step for step in taken if step.at <= end]
    rest = [step for step in taken if step.at > end]
    return _spans(opening), _spans(rest)


def _spans(taken: list[steps.Step]) -> list[float]:
    return [(after.at - before.at) * 1000 for before, after in pairwise(taken)]
