"""Milliseconds a step on files: ``epochal run`` beside plain DDP with torch's DataLoader.

ResNet-18 on 1,600 JPEG files, and a GPT of 10.7 million parameters on a file of tokens.

From the first step on: whatever starts beside a training (loader processes, spare workers, MLflow) shows in its first
ten seconds. Of the ResNet with statistics of batch norm over all workers, which is what makes the result the same
whatever their number, and each worker's own, which is what plain DDP has.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import steps
import torchrun
from contender import BIN, PEERS, WORKERS, Contender, workspace
from measure import Measurement, Promise, Section, interleave
from PIL import Image

IMAGES, CLASSES, SIDE, SIZE = 1600, 8, 160, 64
"""Pictures in files of ``SIDE`` by ``SIDE`` pixels, resized to ``SIZE`` as they are read."""
BATCH = 64
GPT = {"width": 384, "layers": 6, "heads": 6}
LENGTH, VOCABULARY, SEQUENCES, GPT_BATCH = 64, 96, 20_000, 8
MANY = 25 * 10_000
FIRST_SECONDS = 10.0
PLAIN, SYNC, LOCAL = "plain DDP", "epochal run, sync", "epochal run, local"
PLAIN_GPT, OURS_GPT = "plain DDP, gpt", "epochal run, gpt"
_GPT_DATA = {"length": LENGTH, "vocabulary": VOCABULARY}
Start = Callable[[Path, Mapping[str, str]], Contender]


def measure(rounds: int, quick: bool) -> Section:
    seconds = FIRST_SECONDS + (10.0 if quick else 40.0)
    with workspace() as (folder, _):
        images, tokens = folder / "images", folder / "tokens.bin"
        write_images(images)
        np.random.default_rng(0).integers(0, VOCABULARY, SEQUENCES * LENGTH, dtype=np.uint16).tofile(tokens)
        starts = {
            PLAIN: _peer("images.py", folder=str(images / "train"), global_batch_size=BATCH, size=SIZE),
            SYNC: _ours(_resnet(images, "sync")),
            LOCAL: _ours(_resnet(images, "local")),
            PLAIN_GPT: _peer("tokens.py", path=str(tokens), **_GPT_DATA, global_batch_size=GPT_BATCH, **GPT),
            OURS_GPT: _ours(_gpt(tokens)),
        }
        raw = interleave(rounds, {who: _measured(who, start, seconds) for who, start in starts.items()})
    promises = [
        Promise(f"{who}, {when}", f"{who}, {when}", f"{peer}, {when}", limit)
        for who, peer, limit in ((SYNC, PLAIN, None), (LOCAL, PLAIN, 1.02), (OURS_GPT, PLAIN_GPT, 1.02))
        for when in ("first ten seconds", "after that")
    ]
    return Section("real-data", "milliseconds a step, means", raw, promises, NOTES)


NOTES = [
    f"{IMAGES:,} JPEG files of {SIDE} x {SIDE} pixels, read as {SIZE} x {SIZE}; global batch {BATCH}, {WORKERS} workers"
    " with one loader process each.\nThe peer's batch norms have statistics of each worker's own, like `local`.",
    f"The GPT has 10.7 million parameters; {GPT_BATCH} sequences of {LENGTH} tokens a step.",
]


def write_images(folder: Path) -> None:
    """Smooth colour fields with shapes and noise: about as large and as slow to decode as photographs of that size."""
    random = np.random.default_rng(0)
    for index in range(IMAGES + 2 * CLASSES):
        label = index % CLASSES
        coarse = random.integers(0, 256, (5 + label, 5 + label, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        noisy = np.asarray(image, dtype=np.int16) + random.integers(-20, 21, (SIDE, SIDE, 3))
        split = folder / ("train" if index < IMAGES else "val") / f"class{label}"
        split.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(split / f"{index:04d}.jpg", quality=90)


def _measured(who: str, start: Start, seconds: float) -> Measurement:
    def run() -> dict[str, float]:
        with workspace() as (folder, env):
            with start(folder, env) as contender:
                contender.train_for(seconds)
                first, rest = _spans(contender)
            shutil.rmtree(folder, ignore_errors=True)
        return {f"{who}, first ten seconds": fmean(first), f"{who}, after that": fmean(rest)}

    return run


def _peer(script: str, **options: Any) -> Start:
    return lambda folder, env: torchrun.launch(folder, env, PEERS / script, {"steps": MANY, **options})


def _ours(spec: dict[str, Any]) -> Start:
    def start(folder: Path, env: Mapping[str, str]) -> Contender:
        file = folder / "job.yaml"
        file.write_text(json.dumps(spec, indent=1))
        return Contender([BIN / "epochal", "run", file], folder, env)

    return start


def _resnet(images: Path, batch_norm: str) -> dict[str, Any]:
    """The training in ``peers/images.py`` as a job spec."""
    model = {"name": "resnet", "params": {"depth": 18, "stem": "imagenet"}}
    data = {"name": "image-folder", "params": {"path": str(images), "size": [SIZE, SIZE]}}
    return _spec(model, data, BATCH, batch_norm=batch_norm)


def _gpt(tokens: Path) -> dict[str, Any]:
    """The training in ``peers/tokens.py`` as a job spec."""
    data = {"name": "tokens", "params": {"path": str(tokens), "validation": 0.0, **_GPT_DATA}}
    return _spec({"name": "gpt", "params": GPT}, data, GPT_BATCH)


def _spec(model: dict[str, Any], data: dict[str, Any], batch: int, **train: Any) -> dict[str, Any]:
    """It validates and saves at the end alone."""
    return {
        "version": 1,
        "name": "real-data",
        "model": model,
        "data": {**data, "loader_workers": 1},
        "train": {
            "steps": MANY,
            "global_batch_size": batch,
            "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01},
            "validate_every": f"{MANY}steps",
            **train,
        },
        "resources": {"workers": WORKERS},
        "checkpoint": {"every": f"{MANY}steps"},
    }


def _spans(contender: Contender) -> tuple[list[float], list[float]]:
    """Milliseconds between the ends of rank 0's steps: those of the first seconds, and those after them."""
    worker = steps.running(contender.steps, rank=0)
    if worker is None:
        raise RuntimeError("rank 0 took no step")
    taken = [step.at for step in worker.steps()]
    spans = [(after, (after - before) * 1000) for before, after in pairwise(taken)]
    end = taken[0] + FIRST_SECONDS
    return [span for at, span in spans if at <= end], [span for at, span in spans if at > end]
