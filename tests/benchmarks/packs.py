"""Trials of a sweep that train as one in a worker, beside the same trials one after another in one process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from contender import workspace
from measure import Measurement, Promise, Section, interleave

SCRIPT = Path(__file__).parent / "pack_cost.py"
PACKS = {"cpu": (8, 16), "cuda": (16, 64)}
WAYS = ("packed", "one after another")


def measure(rounds: int, quick: bool) -> Section:
    epochs = 5 if quick else 20
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    cases = [(device, trials) for device in devices for trials in PACKS[device]]
    raw = interleave(
        rounds,
        {_name(way, *case): _measured(way, *case, epochs=epochs) for case in cases for way in WAYS},
    )
    promises = [Promise(f"{case[1]} trials on {case[0]}", *(_name(way, *case) for way in WAYS), 0.5) for case in cases]
    note = f"{epochs} epochs of digits by a perceptron, a validation each; each in a process of its own, on one thread"
    return Section("packs", "seconds, without imports, data and models", raw, promises, [note])


def _name(way: str, device: str, trials: int) -> str:
    return f"{trials} on {device}, {way}"


def _measured(way: str, device: str, trials: int, epochs: int) -> Measurement:
    def run() -> dict[str, float]:
        options = json.dumps({"way": way, "trials": trials, "epochs": epochs, "device": device})
        with workspace() as (folder, env):
            command = [sys.executable, str(SCRIPT), options]
            done = subprocess.run(command, cwd=folder, env=env, check=True, stdout=subprocess.PIPE, text=True)
        return {_name(way, device, trials): float(json.loads(done.stdout))}

    return run
