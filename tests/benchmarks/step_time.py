"""Milliseconds a step: Epochal with metrics every step beside plain DDP with none; and with MLflow down.

The first steps of a run warm caches up and are left out. The mean holds what the median does not: whatever comes only
every so many steps, such as the reduction of a window of metrics.
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
from contender import Contender, workspace
from measure import Measurement, Promise, Section, interleave

WARM_UP = 100
BATCHES = (64, 512)
"""Global batch sizes: the quickstart's tiny steps, and longer ones."""
FIGURES = ("median", "mean")
MLFLOW = ("mlflow up", "mlflow refuses", "mlflow hangs")


def measure(rounds: int, quick: bool) -> Section:
    count = 300 if quick else 1500
    raw: dict[str, list[float]] = {}
    for batch in BATCHES:
        options = {"steps": WARM_UP + count, "global_batch_size": batch}
        raw |= interleave(rounds, {who: _measured(f"{who}, batch {batch}", who, options) for who in STARTS})
    options = {"steps": WARM_UP + count, "global_batch_size": 64}
    with workspace() as (folder, env), mlflow_server.running(folder, env) as server, mlflow_server.silent() as silent:
        uris = dict(zip(MLFLOW, (server, mlflow_server.refusing(), silent), strict=True))
        raw |= interleave(rounds, {way: _measured(way, "epochal run", options, uris[way]) for way in MLFLOW})
    return Section("step-time", "milliseconds a step", raw, [*_beside_plain(), *_with_mlflow_down()], NOTES)


NOTES = [
    "epochal run: the whole platform on the same cores, agent, Ray and MLflow's SQLite file included; its loop alone:\n"
    "training.fit with a spool, started by torchrun. mlflow refuses: nothing listens; hangs: it takes connections and\n"
    "never answers."
]


def _beside_plain() -> list[Promise]:
    found = []
    for batch, figure in product(BATCHES, FIGURES):
        run, loop, plain, usual = (f"{who}, batch {batch}, {figure}" for who in STARTS)
        found += [
            Promise(f"epochal run beside plain DDP, batch {batch}, {figure}", run, plain, 1.03),
            Promise("  its loop alone under torchrun", loop, plain, 1.03),
            Promise("  epochal run beside plain DDP with torch's DataLoader", run, usual),
        ]
    return found


def _with_mlflow_down() -> list[Promise]:
    up, *down = MLFLOW
    return [
        Promise(f"{way}, beside up, {figure}", f"{way}, {figure}", f"{up}, {figure}", 1.02)
        for way, figure in product(down, FIGURES)
    ]


def _epochal_loop(folder: Path, env: Mapping[str, str], **options: Any) -> Contender:
    return torchrun.launch(folder, env, Path(__file__).parent / "epochal_loop.py", options)


def _plain_loader(folder: Path, env: Mapping[str, str], **options: Any) -> Contender:
    return torchrun.start(folder, env, loader="dataloader", **options)


STARTS: dict[str, Callable[..., Contender]] = {
    "epochal run": epochal_job.start,
    "epochal loop": _epochal_loop,
    "plain": torchrun.start,
    "plain DataLoader": _plain_loader,
}


def _measured(name: str, who: str, options: dict[str, Any], tracking_uri: str | None = None) -> Measurement:
    def run() -> dict[str, float]:
        with workspace() as (folder, env):
            tracked = {} if tracking_uri is None else {"MLFLOW_TRACKING_URI": tracking_uri}
            with STARTS[who](folder, env | tracked, **options) as contender:
                spent = _milliseconds(contender, options["steps"])
        return {f"{name}, median": median(spent), f"{name}, mean": fmean(spent)}

    return run


def _milliseconds(contender: Contender, count: int) -> list[float]:
    """Between the ends of rank 0's steps, once it has done ``count``."""

    def complete() -> steps.Worker | None:
        worker = steps.running(contender.steps, rank=0)
        return worker if worker and worker.steps[-1].number >= count else None

    worker = steps.wait_for(f"step {count}", complete, contender.alive)
    warm = worker.steps[WARM_UP:]
    return [(after.at - before.at) * 1000 for before, after in pairwise(warm)]
