"""Trials of a sweep that train as one in a worker, beside the same trials one after another in one process."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import torch
from contender import workspace
from measure import Measurement, Promise, Section, interleave

SCRIPT = Path(__file__).parent / "pack_cost.py"
PACKS = {"cpu": (8, 16), "cuda": (16, 64)}
WAYS = ("packed", "one after another")
VALIDATIONS = {"10ep": 0.5, "1ep": None}
"""How often the trials validate, each for itself, and what is promised then."""

Case = tuple[str, int, str]


def measure(rounds: int, quick: bool) -> Section:
    epochs = 10 if quick else 20
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    packs = [(device, trials) for device in devices for trials in PACKS[device]]
    cases: list[Case] = [(*pack, every) for pack, every in product(packs, VALIDATIONS)]
    raw = interleave(rounds, {_name(way, case): _measured(way, case, epochs) for case in cases for way in WAYS})
    promises = [Promise(_name("", case), *(_name(way, case) for way in WAYS), VALIDATIONS[case[2]]) for case in cases]
    note = f"{epochs} epochs of digits by a perceptron, saved by none; each in a process of its own, on one thread"
    return Section("packs", "seconds, without imports, data and models", raw, promises, [note])


def _name(way: str, case: Case) -> str:
    device, trials, every = case
    return f"{trials} trials on {device}, validated every {every}{f', {way}' if way else ''}"


def _measured(way: str, case: Case, epochs: int) -> Measurement:
    device, trials, every = case

    def run() -> dict[str, float]:
        options = {"way": way, "trials": trials, "epochs": epochs, "validate_every": every, "device": device}
        with workspace() as (folder, env):
            command = [sys.executable, str(SCRIPT), json.dumps(options)]
            done = subprocess.run(command, cwd=folder, env=env, check=True, stdout=subprocess.PIPE, text=True)
        return {_name(way, case): float(json.loads(done.stdout))}

    return run
