"""Seconds from submit to the first optimizer step: two workers, the quickstart's model.

Cold: nothing runs before, the figure includes the command's own start. Submitted: a second job on what is up.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

import epochal_job
import ray_train
import served
import torchrun
from contender import PEERS, workspace
from measure import Measurement, Promise, Section, interleave


def measure(rounds: int, quick: bool) -> Section:
    raw = interleave(
        rounds,
        {
            "epochal": _epochal,
            "epochal submit": _epochal_submit,
            "torchrun": _torchrun,
            "torchrun, tuned": _torchrun_tuned,
            "ray train": _ray_train("ray train", ray_train.DEFAULTS),
            "ray train, tuned": _ray_train("ray train, tuned", ray_train.TUNED),
            "ray jobs": _ray_jobs("ray jobs", ray_train.DEFAULTS),
            "ray jobs, tuned": _ray_jobs("ray jobs, tuned", ray_train.TUNED),
        },
    )
    return Section("first-step", "seconds from submit to the first optimizer step", raw, PROMISES, NOTES)


PROMISES = [
    Promise("submitted, beside torchrun", "epochal submit", "torchrun", 0.08),
    Promise("submitted, beside torchrun tuned", "epochal submit", "torchrun, tuned", 0.08),
    Promise("submitted, beside Ray Jobs + Ray Train", "epochal submit", "ray jobs", 0.02),
    Promise("submitted, beside Ray Jobs + Ray Train tuned", "epochal submit", "ray jobs, tuned", 0.02),
    Promise("submitted, an agent has it", "epochal leased"),
    Promise("submitted, every worker runs", "epochal running", limit=0.1),
    Promise("cold, beside Ray Train", "epochal cold", "ray train cold", 0.5),
    Promise("cold, beside Ray Train tuned", "epochal cold", "ray train, tuned cold", 0.5),
    Promise("submitted, beside a Ray Train that is up", "epochal submit", "ray train warm"),
    Promise("submitted, beside a Ray Train that is up, tuned", "epochal submit", "ray train, tuned warm"),
    Promise("cold, beside torchrun", "epochal cold", "torchrun", 1.0),
]
NOTES = [
    "submitted: the second job of an `epochal up`, through the server's HTTP interface, 5 s after the first one's end.",
    "tuned: torchrun reads prepared tensors instead of importing scikit-learn; so does Ray Train, which also has no\n"
    "dashboard (Ray Jobs needs it) and whose controller polls every 0.1 s instead of every 2 s. Ray Jobs are measured\n"
    "on a cluster that is up and has run one job before.",
]


def _epochal() -> dict[str, float]:
    with workspace() as (folder, env), epochal_job.start(folder, env) as contender:
        cold = contender.first_step()
    return {"epochal cold": cold}


def _epochal_submit() -> dict[str, float]:
    with workspace() as (folder, env), served.start(folder, env, jobs=2) as contender:
        submitted = served.moment(contender, "submitted", 1)
        first_step = contender.first_step(since=submitted)
        events = {what: served.moment(contender, what, 1) - submitted for what in ("leased", "running")}
        return {"epochal submit": first_step} | {f"epochal {what}": after for what, after in events.items()}


def _torchrun() -> dict[str, float]:
    with workspace() as (folder, env), torchrun.start(folder, env) as contender:
        return {"torchrun": contender.first_step()}


def _torchrun_tuned() -> dict[str, float]:
    with workspace() as (folder, env), torchrun.start(folder, env, arrays=_arrays(env)) as contender:
        return {"torchrun, tuned": contender.first_step()}


def _ray_train(name: str, settings: Mapping[str, str]) -> Measurement:
    def run() -> dict[str, float]:
        with workspace() as (folder, env):
            options = {"arrays": _arrays(env)} if settings is ray_train.TUNED else {}
            with ray_train.start(folder, env, settings, trainings=2, **options) as contender:
                cold = contender.first_step()
                warm = contender.first_step(since=ray_train.submitted(contender, 1))
                return {f"{name} cold": cold, f"{name} warm": warm}

    return run


def _ray_jobs(name: str, settings: Mapping[str, str]) -> Measurement:
    def run() -> dict[str, float]:
        with workspace() as (folder, env), ray_train.cluster(folder, env, settings) as address:
            options = {"arrays": _arrays(env)} if settings is ray_train.TUNED else {}
            with ray_train.submit(folder, env, settings, address, **options) as first:
                first.wait()
            with ray_train.submit(folder, env, settings, address, **options) as second:
                return {name: second.first_step()}

    return run


def _arrays(env: Mapping[str, str]) -> str:
    """The training data as prepared tensors, written before the clock starts."""
    path = f"{env['HOME']}/digits.pt"
    subprocess.run([sys.executable, PEERS / "digits.py", path], env=dict(env), check=True)
    return path
