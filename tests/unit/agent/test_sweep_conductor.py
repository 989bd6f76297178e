"""What a conductor makes of its slots, which are played: none has a worker."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from epochal.agent.sweep_conductor import Conductor, Sweep
from epochal.agent.sweep_progress import SweepProgress
from epochal.agent.sweep_slots import Orders
from epochal.engine.events import Done
from epochal.engine.gang import Stop
from epochal.engine.payload import TrainPayload, TrialSegment
from epochal.ledger.states import Reason
from epochal.ledger.sweep_values import NewInput, TrialRecord
from epochal.sweeps.trials import TrialState
from sweep_pieces import sweep_spec

TRIALS = 200


class PlayedJournal:
    """Has nothing from before, and keeps what it is told."""

    failed = None

    def __init__(self) -> None:
        self.inputs: list[NewInput] = []

    def earlier(self, spec: Any) -> list[Any]:
        return []

    def replayed(self) -> tuple[list[Any], list[Any]]:
        return [], []

    def asked(self) -> list[Any]:
        return []

    def tell(self, told: NewInput, changed: TrialRecord | None = None) -> None:
        self.inputs.append(told)

    def change(self, changed: TrialRecord) -> None:
        return


@dataclass
class PlayedTell:
    """Keeps how the sweep stood when that was told."""

    stands: list[SweepProgress] = field(default_factory=list)

    def swept(self, progress: SweepProgress) -> None:
        self.stands.append(progress)


@dataclass
class PlayedSlot:
    """Trains at once. ``broken``: raises at its second segment."""

    number: int = 0
    broken: bool = False
    trained: int = 0

    def train(self, segments: Sequence[TrialSegment]) -> list[Done]:
        self.trained += 1
        if self.broken and self.trained == 2:
            raise RuntimeError("the slot is broken")
        result = {"state": "completed", "step": 90, "epochs": 9.0, "why_alone": ""}
        return [Done(0, {**result, "metrics": {"val/loss": float(one.trial)}}) for one in segments]

    def end_trial(self, trial: int) -> None:
        return

    def close(self) -> None:
        return


class PlayedSlots:
    """Has these slots from beginning to end."""

    surplus = 0

    def __init__(self, slots: Sequence[PlayedSlot]) -> None:
        self._slots = slots

    def __len__(self) -> int:
        return len(self._slots)

    def begin(self) -> list[PlayedSlot]:
        return list(self._slots)

    def joining(self) -> list[PlayedSlot]:
        return []

    def overdue(self) -> list[PlayedSlot]:
        return []

    def leaves(self, slot: PlayedSlot) -> bool:
        return False

    def is_leaving(self, slot: PlayedSlot) -> bool:
        return False


def conducted(folder: Path, tell: PlayedTell, *slots: PlayedSlot) -> tuple[Conductor, PlayedJournal]:
    spec, journal, place = sweep_spec(mode="min", trials=TRIALS, pack="off"), PlayedJournal(), object()
    payload = TrainPayload(spec.model_dump(mode="json"), "")
    sweep: Any = Sweep(spec, payload, folder, journal, Orders(lambda: None))  # type: ignore[arg-type]
    played: Any = tell
    conductor = Conductor(sweep, place, played, Stop())  # type: ignore[arg-type]
    conductor.begin()
    pool: Any = PlayedSlots(slots)
    conductor.conduct(pool)
    return conductor, journal


def test_how_a_sweep_stands_is_told_now_and_then_and_at_its_end(tmp_path: Path) -> None:
    """To tell it goes over all trials: after each segment, thousands of tiny ones would wait for that."""
    tell, began = PlayedTell(), time.monotonic()
    conductor, journal = conducted(tmp_path, tell, PlayedSlot(0), PlayedSlot(1))
    lasted = time.monotonic() - began
    assert conductor.ending().reason is Reason.COMPLETED
    assert len(journal.inputs) >= 2 * TRIALS
    assert len(tell.stands) <= 3 + lasted / 0.25  # where it begins, at once, and at the end
    last = tell.stands[-1]
    assert [trial.state for trial in last.trials] == [TrialState.COMPLETED] * TRIALS
    assert last.best is not None
    assert last.best.number == 0


def test_a_slot_that_breaks_ends_the_attempt(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the slot is broken"):
        conducted(tmp_path, PlayedTell(), PlayedSlot(0, broken=True))
