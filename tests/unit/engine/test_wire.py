"""Events cross from a worker to the agent as JSON, and come back as they were."""

from __future__ import annotations

import math
from typing import get_args

import pytest

from epochal.catalog.understood import Understood
from epochal.engine import wire
from epochal.engine.events import Done, Event, Failed, FailureKind, Heartbeat, Log, Reported, Started
from epochal.engine.failure import Evidence
from epochal.training.control import Noted, Prepared, Progress, Report, Saved, SetAside
from epochal.training.data_summary import ClassCount, DataSummary

REPORTS: list[Report] = [
    Progress("train", 10, 100, 0, 2.0, {"train/loss": 0.1 + 0.2, "perf/samples_per_second": math.inf}),
    Saved(10, "checkpoints/step-00000010", "d1", {"val/loss": 0.5}, best=True),
    Prepared(
        DataSummary(
            "digits", "sklearn", "d2", 1437, 360, (Understood("a", "input", 2),), (ClassCount("0", 9, 1),), ("so",), 7
        ),
        650,
    ),
    SetAside(10, "checkpoints/step-00000010.damaged", "__0_0.distcp is damaged"),
    Noted("val/r2 is left out"),
]
EVENTS: list[Event] = [
    Started(0, 17, 1234.5, "n1", "10.0.0.1", "cuda:0", ("10.0.0.1", 4242)),
    Started(1, 18, 1234.75, "n1", "10.0.0.1", "cpu"),
    Heartbeat(1, "checkpoint", 7, 20, 3, 1, stepped=False),
    *(Reported(0, report) for report in REPORTS),
    Log(1, "épochs: 3\n\u2603 \x00"),
    Done(0, {"state": "completed", "best": [0.9, 12], "weights": None}),
    Failed(1, FailureKind.OUT_OF_MEMORY, "MemoryError: 8 GiB", "trace", Evidence.EXCEPTION),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_there_and_back(event: Event) -> None:
    assert wire.decode(wire.encode(event)) == event


def test_every_kind_is_among_them() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(Event))
    assert {type(report) for report in REPORTS} == set(get_args(Report))


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{", b'["Log"]', b'["Log", {"rank": 1}]', b'["WorkerContext", {}]', b"[[], {}]", b"\xff", b"7"],
)
def test_what_is_no_event_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="no event"):
        wire.decode(text)
