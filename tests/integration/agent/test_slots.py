"""Kept workers that train segments of trials, on a real private Ray."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from epochal.engine.connection import Connection
from epochal.engine.events import Done, Failed, FailureKind, Started
from epochal.engine.gang import Stop
from epochal.engine.hub import Hub
from epochal.engine.payload import TrialSegment
from epochal.engine.place import GangRequest, reserve
from epochal.engine.slot import Attempt, Slot
from epochal.spec.job import JobSpec
from epochal.tracking.metric_spool import read_lines, segments
from epochal.training import checkpoint
from epochal.training.control import Prepared, Progress, Report
from polling import gone, until

WAIT = 60.0


class Heard:
    """What the slots' workers told."""

    def __init__(self) -> None:
        self.workers: dict[int, Started] = {}
        self.reports: list[tuple[int | None, Report]] = []
        self.printed = ""

    def started(self, workers: Mapping[int, Started]) -> None:
        self.workers |= workers

    def log(self, rank: int, text: str, begun: str) -> None:
        self.printed += text

    def report(self, trial: int | None, report: Report) -> None:
        self.reports.append((trial, report))


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def attempt(cluster: Connection, heard: Heard, tmp_path: Path) -> Iterator[Attempt]:
    with reserve(cluster, GangRequest("sweep", (2, 2)), WAIT) as place, Hub(cluster.host) as hub:
        yield Attempt(place, tmp_path, 1, "", Stop(), hub, heard)


def segment(trial: int, until: float = 2, workers: int = 1, **changes: Any) -> TrialSegment:
    train = {"epochs": 2, "global_batch_size": 32, "optimizer": {"name": "sgd", "lr": 0.01}, **changes}
    spec = JobSpec.model_validate(
        {
            "version": 1,
            "name": "wine",
            "model": {"name": "mlp"},
            "data": {"name": "wine"},
            "train": train,
            "objective": {"metric": "val/loss", "mode": "min"},
            "checkpoint": {"every": "1h", "keep": {"best": 0}},
            "resources": {"workers": workers},
        }
    )
    stored = spec.model_dump(mode="json", exclude_unset=True)
    return TrialSegment(trial, f"trials/{trial:05d}", stored, until, "epochs", saved=until < 2)


def train(slot: Slot, one: TrialSegment) -> Done | Failed | None:
    return slot.train([one])[0]


def losses(folder: Path) -> list[float]:
    points = (point for path in segments(folder) for line in read_lines(path) for point in line.points)
    return [point.value for point in points if point.name == "train/loss"]


def test_kept_workers_train_trials_in_segments_and_packs(attempt: Attempt, heard: Heard, tmp_path: Path) -> None:
    slots = [Slot(attempt, number, [seat]) for number, seat in enumerate(attempt.place.seats())]
    first = train(slots[0], segment(0, until=1))
    assert isinstance(first, Done)
    assert first.result["state"] == "reached"
    assert checkpoint.steps(tmp_path / "trials/00000/checkpoints") == [first.result["step"]]
    other = train(slots[1], segment(1))
    assert isinstance(other, Done)
    assert other.result["state"] == "completed"
    pids = {number: one.pid for number, one in heard.workers.items()}
    assert sorted(pids) == [0, 1]

    on = train(slots[1], segment(0))  # in the other one's workers
    assert isinstance(on, Done)
    assert on.result["state"] == "completed"
    assert on.result["metrics"] == other.result["metrics"]  # two segments are as one
    assert losses(tmp_path / "trials/00000") == losses(tmp_path / "trials/00001")
    assert {number: one.pid for number, one in heard.workers.items()} == pids

    # Packs, in the same workers: each takes seconds to start.
    rates = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3]
    changes = [{"optimizer": {"name": "sgd", "lr": rate}, "seed": seed} for seed, rate in enumerate(rates)]
    segments = [segment(2 + trial, **its) for trial, its in enumerate(changes)]
    with ThreadPoolExecutor(2) as threads:
        packs = [*threads.map(Slot.train, slots, (segments[:3], segments[3:]))]
    for trial, ended in enumerate(ended for pack in packs for ended in pack):
        assert isinstance(ended, Done)
        assert (ended.result["state"], ended.result["why_alone"]) == ("completed", "")
        alone = segment(10 + trial, **changes[trial])
        result = train(slots[trial % 2], alone)
        assert isinstance(result, Done)
        assert ended.result["metrics"] == pytest.approx(result.result["metrics"], rel=1e-4)
        curves = [losses(tmp_path / one.folder) for one in (segments[trial], alone)]
        assert curves[0] == pytest.approx(curves[1], rel=1e-4)
    assert {number: one.pid for number, one in heard.workers.items()} == pids
    for slot in slots:
        slot.close()
    until(lambda: all(gone(pid) for pid in pids.values()), "both workers gone")
    assert [trial for trial, report in heard.reports if isinstance(report, Prepared)] == [None]
    assert {trial for trial, report in heard.reports if isinstance(report, Progress)} == {*range(8), *range(10, 16)}


@pytest.mark.slow  # that of a sweep of an agent is among the quick ones
def test_a_failing_trial_costs_itself(attempt: Attempt, heard: Heard) -> None:
    slot = Slot(attempt, 0, attempt.place.seats()[:1])
    nan = train(slot, segment(0, 50, optimizer={"name": "sgd", "lr": 9e5}, epochs=50))
    assert isinstance(nan, Failed)
    assert nan.kind is FailureKind.NON_FINITE_LOSS
    pid = heard.workers[0].pid
    wrong = train(slot, segment(1, freeze=["nothing.*"]))
    assert isinstance(wrong, Failed)
    assert (wrong.kind, wrong.message) == (FailureKind.USER_ERROR, wrong.message)
    assert "nothing.*" in wrong.message
    assert isinstance(train(slot, segment(2)), Done)
    assert heard.workers[0].pid == pid

    threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()
    killed = train(slot, segment(3, 100_000, epochs=100_000))
    assert isinstance(killed, Failed)
    assert killed.kind is FailureKind.INFRASTRUCTURE
    assert isinstance(train(slot, segment(4)), Done)  # by a new one
    assert heard.workers[0].pid != pid
    slot.close()


@pytest.mark.slow
def test_a_trial_is_ended_and_goes_on(attempt: Attempt, tmp_path: Path) -> None:
    slot = Slot(attempt, 0, attempt.place.seats()[:1])
    threading.Timer(1.0, slot.end_trial, [0]).start()
    long = segment(0, until=100_000, epochs=100_000)
    ended = train(slot, long)
    assert isinstance(ended, Done)
    assert ended.result["state"] == "stopped"
    assert checkpoint.steps(tmp_path / "trials/00000/checkpoints") == [ended.result["step"]]
    assert isinstance(train(slot, segment(1)), Done)
    threading.Timer(0.5, attempt.stop.request).start()
    again = train(slot, long)
    assert isinstance(again, Done)
    assert again.result["step"] > ended.result["step"]
    slot.close()


@pytest.mark.slow
def test_a_gang_of_two_is_kept(attempt: Attempt, heard: Heard) -> None:
    slot = Slot(attempt, 0, attempt.place.seats())
    results = [train(slot, segment(trial, workers=2)) for trial in range(3)]
    assert all(isinstance(one, Done) for one in results)
    assert results[0] == results[1] == results[2]
    pids = [heard.workers[number].pid for number in (0, 1)]
    nan = train(slot, segment(3, 50, 2, optimizer={"name": "sgd", "lr": 9e5}, epochs=50))
    assert isinstance(nan, Failed)
    assert nan.kind is FailureKind.NON_FINITE_LOSS
    wrong = train(slot, segment(4, workers=2, freeze=["nothing.*"]))
    assert isinstance(wrong, Failed)
    assert "nothing.*" in wrong.message
    assert isinstance(train(slot, segment(5, workers=2)), Done)
    slot.close()
    until(lambda: all(gone(pid) for pid in pids), "both workers gone")
