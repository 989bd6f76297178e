"""What `epochal up` and `submit` make of code and servers that people have, as a person types it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import made
import pytest
from mlflow import MlflowClient
from typist import Typist

from epochal.local.service_state import read_services
from epochal.settings import Home
from polling import gone, until

pytestmark = pytest.mark.slow

LOUD = """
import os, sys, time
from math import prod
from torch import nn

class Net(nn.Module):
    def __init__(self, info, mode):
        super().__init__()
        self.l = nn.Sequential(nn.Flatten(), nn.Linear(prod(info.input.shape), info.target.width))
        self.mode, self.n = mode, 0
        if mode == "long":
            print("L" * 5_000_000 + "END")
            print("after long", flush=True)
        if mode == "binary":
            os.write(1, bytes(range(256)) * 4 + b"\\n\\xff\\xfe no newline at end \\xf0\\x9f")
            time.sleep(1.5)
            os.write(1, b"\\x98\\x80 smile split\\nlast\\n")
        if mode == "many":
            for i in range(50_000):
                print(f"line {i} " + "x" * 30)
    def forward(self, x):
        self.n += 1
        if self.mode == "bar":
            sys.stderr.write(f"\\rstep {self.n} of many")
            sys.stderr.flush()
            time.sleep(0.02)
        return self.l(x)
"""
LEAKS = made.NET.replace(
    "    def forward(self, x):",
    "    def forward(self, x):\n"
    "        import os\n"
    "        print('token is', os.environ['MY_SECRET'], flush=True)\n"
    "        raise RuntimeError('cannot log in with ' + os.environ['MY_SECRET'])",
)
LEAVES = made.NET.replace(
    "    def forward(self, x):",
    "    def forward(self, x):\n"
    "        import os, json, subprocess\n"
    "        if self.training and not hasattr(self, 'once'):\n"
    "            self.once = True\n"
    "            print('env', json.dumps({k: v for k, v in os.environ.items() if k.startswith('A_')}), flush=True)\n"
    "            plain = subprocess.Popen(['sleep', '600'])\n"
    "            own = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
    "            print('left', plain.pid, own.pid, flush=True)",
)
STUCK = made.NET.replace(
    "    def forward(self, x):",
    "    def forward(self, x):\n"
    "        import time\n"
    "        self.n = getattr(self, 'n', 0) + 1\n"
    "        if self.n == 4 and self.training:\n"
    "            print('stuck now', flush=True)\n"
    "            time.sleep(600)",
)
VALUES = {
    "A_NL": "one\ntwo\n",
    "A_DOLLAR": "$HOME ${PATH} `id` $(id)",
    "A_QUOTE": 'it\'s "quoted" \\ back',
    "A_UNI": "größe 🎯",
    "A_EMPTY": "",
    "A_EQ": "a=b=c",
}


def mlflow_of(typist: Typist) -> MlflowClient:
    return MlflowClient(read_services(Home(typist.home).services).url("mlflow"))  # type: ignore[union-attr]


def submitted(typist: Typist, *words: str) -> str:
    done = typist.epochal("submit", "job.yaml", "-o", "name", *words)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.strip()


def loud(folder: Path, mode: str) -> None:
    made.code(folder, LOUD)
    made.job(folder, {"name": "wine"}, model={"name": "nets:Net", "params": {"mode": mode}}, code={"dir": "."})


def test_19_a_file_with_a_colon_is_shipped(served: Typist) -> None:
    made.code(served.folder, beside=["run_12:30:05.log"])
    assert served.job(submitted(served, "--wait"))["state"] == "SUCCEEDED"


def test_26_an_experiment_that_was_deleted_is_said_and_gets_all_once_it_is_restored(served: Typist) -> None:
    mlflow = mlflow_of(served)
    deleted = mlflow.create_experiment("team/churn v2")
    mlflow.delete_experiment(deleted)
    made.job(served.folder, {"name": "wine"}, experiment="team/churn v2")
    job = submitted(served, "--wait")
    assert served.job(job)["state"] == "SUCCEEDED"
    told = served.epochal("status", job).stdout
    assert "'team/churn v2' was deleted in MLflow" in told
    assert "mlflow experiments restore" in told
    sync, doctor = served.epochal("runs", "sync"), served.epochal("doctor")
    assert "nothing was waiting" not in sync.stderr
    assert "MLflow has everything" not in doctor.stdout
    mlflow.restore_experiment(deleted)
    until(lambda: mlflow.search_runs([deleted]), "its run")


@pytest.mark.parametrize(
    ("mode", "last"), [("long", "after long"), ("binary", "last"), ("many", f"line 49999 {'x' * 30}")]
)
def test_b01_long_and_binary_lines_and_many(mode: str, last: str, served: Typist) -> None:
    loud(served.folder, mode)
    job = submitted(served, "--wait")
    assert served.job(job)["state"] == "SUCCEEDED"
    assert last in served.epochal("logs", job, "--tail", "20").stdout


def test_b01_a_bar_is_seen_while_it_moves(served: Typist) -> None:
    loud(served.folder, "bar")
    job = submitted(served, "-s", "train.epochs=60")
    follower = served.started("logs", "-f", job)
    assert follower.stdout is not None
    first = next(line for line in follower.stdout if "of many" in line)
    assert served.job(job)["state"] == "RUNNING", first
    served.epochal("stop", job, "--now", "--wait")
    follower.communicate(timeout=60)


def test_b03_a_secret_that_is_printed_and_raised_is_nowhere(served: Typist) -> None:
    made.code(served.folder, LEAKS, secrets=["MY_SECRET"])
    job = submitted(served, "--wait")
    said = [served.epochal(verb, job).stdout for verb in ("logs", "status", "events")]
    assert "token is ***" in said[0]
    assert "cannot log in with ***" in said[1]
    assert served.environ["MY_SECRET"] not in "".join(said)
    assert served.left(served.environ["MY_SECRET"]) == []


def test_b03_values_are_as_they_were_written_and_children_end_with_the_job(served: Typist) -> None:
    made.code(served.folder, LEAVES, env=VALUES)
    job = submitted(served, "--wait")
    assert served.job(job)["state"] == "SUCCEEDED"
    lines = served.epochal("logs", job).stdout.splitlines()
    seen = next(line.partition("env ")[2] for line in lines if " env " in line or line.startswith("env "))
    assert json.loads(seen) == VALUES
    pids = [int(word) for line in lines if "left " in line for word in line.partition("left ")[2].split()]
    assert pids
    until(lambda: all(map(gone, pids)), "the children have ended", 30)


@pytest.mark.parametrize("budget", [0, 3])
def test_b05_who_stops_a_job_that_is_stuck_sees_it_stopped(budget: int, served: Typist) -> None:
    made.code(served.folder, STUCK, retry={"infra": budget})
    job = submitted(served)
    until(lambda: "stuck now" in served.epochal("logs", job).stdout, "it is stuck")
    begun = time.monotonic()
    served.epochal("stop", job, "--wait", "--grace", "2s")
    assert served.job(job)["state"] == "STOPPED"
    assert time.monotonic() - begun < 30


def test_b07_a_run_that_was_deleted_while_its_job_wrote_has_every_step_once_it_is_restored(served: Typist) -> None:
    loud(served.folder, "bar")
    job = submitted(served, "-s", "train.epochs=30")
    until(lambda: served.job(job).get("run_id") and served.job(job)["progress"], "it writes")
    mlflow, run_id = mlflow_of(served), served.job(job)["run_id"]
    mlflow.delete_run(run_id)
    ended = served.until(job, "SUCCEEDED", "FAILED")
    assert ended["state"] == "SUCCEEDED"
    assert "deleted" in served.epochal("status", job).stdout
    assert "MLflow has everything" not in served.epochal("doctor").stdout
    mlflow.restore_run(run_id)
    served.epochal("runs", "sync")
    steps = ended["progress"]["total_steps"]
    until(lambda: len(mlflow.get_metric_history(run_id, "train/loss")) >= steps, f"all {steps} steps", 60)
    assert mlflow.get_run(run_id).info.status == "FINISHED"


PYTHON = """
import asyncio, copy, json, pathlib, pickle, sys, threading
import numpy as np
from epochal.client import Client
spec = {"version": 1, "name": "py", "model": {"name": "mlp", "params": {"hidden": [4]}},
        "data": {"name": "wine"}, "train": {"epochs": 1}}

async def main():
    with Client() as client:
        return client.submit(spec)

first = asyncio.run(main())
assert pickle.loads(pickle.dumps(first.job)) == first.job
client = Client()
assert "ep_" not in repr(client)
taken = client.submit({**spec, "train": {"epochs": np.int64(1)}, "priority": np.int32(50)})
ids = []
def work():
    ids.append(client.submit(spec, key="same-key").id)
threads = [threading.Thread(target=work) for _ in range(12)]
[one.start() for one in threads]
[one.join() for one in threads]
refused = []
for bad in ({"version": 1}, {**spec, "train": {"epochs": float("nan")}}, {**spec, "tags": {"a": object()}}, "no.yaml"):
    try:
        client.submit(bad)
    except Exception as error:
        refused.append([type(error).__module__, str(error)])
client.close()
print(json.dumps({"ids": ids, "taken": taken.id, "refused": refused}))
"""


def test_b04_the_client_takes_what_people_have_in_hand(served: Typist) -> None:
    done = served.python(PYTHON)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert len(told["ids"]) == 12
    assert len(set(told["ids"])) == 1
    assert [module for module, _ in told["refused"]] == ["epochal.errors"] * 4
    assert "tags.a" in told["refused"][2][1]
    for ref in (told["taken"], told["ids"][0]):
        served.epochal("stop", ref, "--now")
