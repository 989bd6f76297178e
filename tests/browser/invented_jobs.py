"""A ledger as it looks on a busy afternoon, made by the calls that users and agents make."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

from epochal.catalog.understood import Understood
from epochal.ledger.capacity import Node
from epochal.ledger.states import JobState, Reason
from epochal.ledger.values import Job, Lease
from epochal.training.data_summary import MOST_SHOWN, ClassCount, DataSummary
from running_server import RunningServer

EVIL = "<script>document.title = 'taken over'</script>"
NODES = [
    Node("n1", "gpu-01", {"CPU": 16, "GPU": 4, "memory": 64 * 2**30}, {"CPU": 3.5, "GPU": 1, "memory": 20 * 2**30}),
    Node("n2", "gpu-02", {"CPU": 16, "GPU": 4, "memory": 64 * 2**30}, {"CPU": 8, "GPU": 2, "memory": 41.5 * 2**30}),
]
MLFLOW = "http://mlflow.example:5000"
DATA = DataSummary(
    dataset="csv",
    source="/data/plants/2026 survey.csv",
    digest="d1",
    train_samples=24_210,
    validation_samples=6053,
    understood=(
        Understood("2026 survey.csv", "table", note="30,263 rows, delimiter ';', encoding utf-8, decimal ','"),
        Understood("plot", "left out"),
        Understood("height", "number", 1204, "row 34, 128, 131, 240, 402 and 1,199 more become the mean"),
        Understood("soil", "category", note="4 values: clay, loam, sand, silt"),
        Understood(EVIL, "number"),
        *(Understood(f"band_{number}", "number") for number in range(120)),
        Understood("species", "target, class", note="7 classes"),
    ),
    classes=tuple(
        ClassCount(name, train, round(train / 4))
        for name, train in (
            ("ash", 9120), ("beech", 8800), ("hornbeam and other broad-leaved trees of the hills", 4205), ("oak", 1820),
            ("pine", 240), ("rowan", 25), ("yew", 0),
        )
    ),
    notes=(
        "1 of 6,053 validation samples are of classes that no training sample has: sample 17 is of class 6",
        "val/auroc is left out: it needs two classes among the validation samples",
    ),
)  # fmt: skip


@dataclass
class Invented:
    """The jobs by what they are for, the lease of the one that trains, and a secret for each kind of person."""

    server: RunningServer
    training: Lease
    jobs: dict[str, Job]
    secrets: dict[str, str]

    def beat(self) -> None:
        """Have the first agent tell again that it is alive."""
        self.server.ledger.heartbeat("cluster-a", "1", NODES, [], {"warnings": [WARNING]})


WARNING = {"found": "node gpu-01 does not keep idle workers", "advice": "set RAY_a=0 <b>there</b>"}


def spec(queue: str = "default", **resources: Any) -> dict[str, Any]:
    asked = {"workers": 2, "cpus_per_worker": 1, **resources}
    return {"version": 1, "model": {"name": "cnn"}, "queue": queue, "resources": asked}


def progress(step: int, total: int = 1000, epochs: float = 5.0) -> dict[str, Any]:
    noise = random.Random(1)
    losses = [[at, 2.3 * math.exp(-at / 250) + 0.08 + noise.random() * 0.1] for at in range(0, step + 1, 10)]
    return {
        "phase": "train", "step": step, "total_steps": total, "epoch": int(step / total * epochs), "epochs": epochs,
        "metrics": {"train/loss": losses[-1][1], "val/accuracy": 0.9131, "val/loss": 0.2931},
        "samples_per_second": 20433.1, "eta_seconds": (total - step) * 0.11, "loss_history": losses[-60:],
        "loss_values": len(losses), "more_metrics": 3,
    }  # fmt: skip


def invent(server: RunningServer) -> Invented:
    ledger = server.ledger
    secrets = {name: ledger.create_token(name, "user")[1] for name in ("anna", "ben")}
    secrets["visitor"] = ledger.create_token("visitor", "viewer")[1]
    secrets["boss"] = ledger.create_token("boss", "admin")[1]
    jobs: dict[str, Job] = {}

    def submit(purpose: str, name: str, user: str = "anna", **options: Any) -> Job:
        asked = options.pop("spec", spec())
        origin = {"file": f"{name}.yaml", "tags": {"team": "vision"}}
        jobs[purpose] = ledger.submit(asked, name=name, submitted_by=user, origin=origin, **options)
        return jobs[purpose]

    _ended(server, submit)
    ledger.heartbeat("cluster-a", "1", NODES, [], {"warnings": [WARNING]})
    ledger.heartbeat("lab-laptop", "1", [Node("n3", "192.168.1.20", {"CPU": 2}, {"CPU": 2})], [], {})
    training = _runs(server, submit("training", "digits-cnn"), progress(430))
    ledger.set_data(training, DATA.first(MOST_SHOWN).to_dict())
    _runs(server, submit("evil", EVIL, "ben"), progress(60, 400))
    _runs(
        server, submit("large", "resnet50-imagenet-baseline", "ben", spec=spec("research")), progress(700, 90000, 90.0)
    )
    _leased(server, submit("starting", "tiny-transformer", "anna"))
    _queue(submit)
    return Invented(server, training, jobs, secrets)


def _queue(submit: Any) -> None:
    submit("next", "vit-finetune", "anna", priority=90)
    submit("wide", "llm-3b-pretrain", "ben", spec=spec("research", workers=8, gpus_per_worker=1), priority=80)
    submit("never", "moe-router", "anna", spec=spec(memory_per_worker="512GiB"), priority=70)
    for index in range(4):
        submit(f"small-{index}", f"ablation-{index}", "ben", spec=spec(cpus_per_worker=7))


def _ended(server: RunningServer, submit: Any) -> None:
    ledger = server.ledger
    good = _runs(server, submit("good", "digits-mlp"), progress(1000))
    ledger.finish(good, JobState.SUCCEEDED, Reason.COMPLETED)
    bad = _runs(server, submit("bad", "unet-segmentation", "ben"), progress(20))
    message = "rank 1: ValueError: expected an input with 3 channels, got 1 (my_pkg/nets.py, line 42, in forward)"
    ledger.finish(bad, JobState.FAILED, Reason.USER_ERROR, message)
    ledger.request_stop(submit("stopped", "bert-base", "ben").id, "not needed any more")
    ledger.request_pause(submit("paused", "speech-ctc", "anna").id)


def _leased(server: RunningServer, job: Job) -> Lease:
    lease = server.ledger.lease("cluster-a/1", 600, job.id)
    assert lease is not None
    return lease


def _runs(server: RunningServer, job: Job, told: dict[str, Any]) -> Lease:
    lease = _leased(server, job)
    server.ledger.running(lease, world_size=2)
    server.ledger.set_run(lease, f"{job.number:032x}", MLFLOW)
    server.ledger.saved(lease, 20, "checkpoints/step-20")
    server.ledger.renew(lease, 600, told)
    return lease
