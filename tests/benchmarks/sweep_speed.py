"""Seconds a trial of sweeps: tiny ones beside Ray Tune, Optuna and a plain loop; and how busy two slots are kept.

All train the same perceptron on digits for as many steps as a plain loop does in about 50 ms, with one thread each.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import epochal_job
import warm_agent
from contender import BIN, PEERS, Contender, workspace
from measure import Measurement, Promise, Section, interleave

STEPS = 150
SLOW = Path(__file__).parents[1] / "faults" / "slow_job"
LONG_TRIALS, LONG_SECONDS, SLOTS = 200, 1.0, 2


def measure(rounds: int, quick: bool) -> Section:
    trials = 20 if quick else 100
    few = 4 if quick else 10
    long = 20 if quick else LONG_TRIALS
    contenders: dict[str, Measurement] = {
        "epochal, 2 slots": partial(_epochal, "epochal, 2 slots", _spec(trials, SLOTS)),
        "epochal, 1 slot": partial(_epochal, "epochal, 1 slot", _spec(trials, 1)),
        "unpacked, 2 slots": partial(_epochal, "unpacked, 2 slots", _spec(trials, SLOTS, pack="off")),
        "unpacked, 1 slot": partial(_epochal, "unpacked, 1 slot", _spec(trials, 1, pack="off")),
        "epochal run, 1 slot": partial(_epochal, "epochal run, 1 slot", _spec(trials, 1), cold=True),
        "plain loop": partial(_peer, "plain loop", "plain", trials),
        "Optuna": partial(_peer, "Optuna", "optuna", trials),
        # 3 s a trial: fewer say as much.
        "Tune, function": partial(_peer, "Tune, function", "tune-function", few),
        "Tune, class": partial(_peer, "Tune, class", "tune-class", trials),
        "Tune, class, tuned": partial(_peer, "Tune, class, tuned", "tune-class-tuned", trials),
        "Tune, class, MLflow": partial(_peer, "Tune, class, MLflow", "tune-class-recorded", trials),
    }
    raw = interleave(rounds, contenders)
    raw |= interleave(1, {"long": partial(_long, long)})
    return Section("sweep", "seconds a trial", raw, PROMISES, NOTES)


PROMISES = [
    Promise("epochal beside Tune's function API", "epochal, 2 slots", "Tune, function", 1 / 50),
    Promise("  beside its class API, actors reused", "epochal, 2 slots", "Tune, class", 1 / 5),
    Promise("  beside that, tuned", "epochal, 2 slots", "Tune, class, tuned", 1 / 5),
    Promise("  beside that, recorded in MLflow as ours is", "epochal, 2 slots", "Tune, class, MLflow", 1 / 5),
    Promise("epochal, 1 slot, beside a plain loop", "epochal, 1 slot", "plain loop", 1 / 0.8),
    Promise("  beside Optuna in one process", "epochal, 1 slot", "Optuna"),
    Promise("unpacked, 2 slots, beside Tune's function API", "unpacked, 2 slots", "Tune, function"),
    Promise("  beside its class API, actors reused, tuned", "unpacked, 2 slots", "Tune, class, tuned"),
    Promise("unpacked, 1 slot, beside a plain loop", "unpacked, 1 slot", "plain loop"),
    Promise("epochal run, 1 slot, workers' start included", "epochal run, 1 slot", "plain loop"),
    Promise("one-second trials on two slots, beside ideal", "long trials", "long trials, ideal", 1 / 0.95),
]
NOTES = [
    "From when the first trial begins until the last has ended, with Ray up: an agent has warm workers, as after\n"
    "`epochal up`; `epochal run` starts its own meanwhile. Trials are packed by default; unpacked: `sweep.pack: off`.\n"
    "Peers: `peers/sweep_peer.py`. One-second trials sleep; ideal is their second, divided among the slots."
]


def _epochal(name: str, spec: Mapping[str, Any], cold: bool = False) -> Mapping[str, float]:
    began, ended, count = _swept(spec, cold)
    return {name: (ended - began) / count}


def _long(trials: int) -> Mapping[str, float]:
    spec = _spec(trials, SLOTS, pack="off")  # which would sleep once for all of them
    spec["task"] = {"name": "slow_task:SlowClassification"}
    spec["code"] = {"dir": "code"}
    spec["train"]["steps"] = 10
    spec["train"]["validate_every"] = "10steps"
    # Ten steps, and twelve batches of the validation, each of which sleeps too.
    spec["env"] = {"SLOW_WHILE": str(SLOW), "SLOW_SECONDS": str(LONG_SECONDS / 22)}
    began, ended, count = _swept(spec)
    return {"long trials": (ended - began) / count, "long trials, ideal": LONG_SECONDS / SLOTS}


def _spec(trials: int, slots: int, pack: str = "auto") -> dict[str, Any]:
    spec = epochal_job.job_spec(STEPS, 32, hidden=(128, 64))
    del spec["checkpoint"]
    spec["resources"] = {"workers": 1, "cpus_per_worker": 1}
    spec["train"]["optimizer"] = {"name": "sgd", "lr": 0.1}
    spec["objective"] = {"metric": "val/loss", "mode": "min"}
    spec["sweep"] = {
        "search": {"name": "random"},
        "trials": trials,
        "concurrency": slots,
        "pack": pack,
        "space": {"train.optimizer.lr": {"dist": "loguniform", "low": 1e-3, "high": 0.3}},
    }
    return spec


def _swept(spec: Mapping[str, Any], cold: bool = False) -> tuple[float, float, int]:
    """When the first trial began, when the last ended, and how many there were; ``cold``: by `epochal run`."""
    with workspace() as (folder, env):
        shutil.copytree(SLOW, folder / "code")
        path = folder / "sweep.yaml"
        path.write_text(json.dumps(spec))
        warm: list[str | Path] = [sys.executable, Path(warm_agent.__file__), path]
        command = [BIN / "epochal", "run", path, "-q"] if cold else warm
        with Contender(command, folder, env | {"PYTHONPATH": ""}) as contender:
            contender.wait(900)
        (journal,) = (folder / "epochal").glob("storage/jobs/*/trials/runs.jsonl")
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
    ended = [line for line in lines if line["state"] == "COMPLETED"]
    if len(ended) != spec["sweep"]["trials"]:
        raise RuntimeError(f"{len(ended)} of {spec['sweep']['trials']} trials were completed")
    return min(line["at"] for line in lines), max(line["at"] for line in ended), len(ended)


def _peer(name: str, way: str, trials: int) -> Mapping[str, float]:
    with workspace() as (folder, env):
        plain = env | {"PYTHONPATH": ""}
        command = [BIN / "python", PEERS / "sweep_peer.py", way, str(trials), str(STEPS)]
        with Contender(command, folder, plain) as contender:
            contender.wait(900)
            told = next(line for line in contender.tail(400).splitlines()[::-1] if line.startswith('{"seconds"'))
    return {name: float(json.loads(told)["seconds"]) / trials}
