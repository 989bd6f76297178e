"""What a conductor makes of its slots, which are played: none has a worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from epochal.agent.sweep_conductor import Conductor, Sweep
from epochal.agent.sweep_progress import SweepProgress
from epochal.agent.sweep_slots import Orders
from epochal.agent.trial_states import checkpoints
from epochal.engine.events import Done
from epochal.engine.gang import Stop
from epochal.engine.payload import TrainPayload, TrialSegment
from epochal.ledger.states import Reason
from epochal.ledger.sweep_values import NewInput, SweepRequest, TrialRecord
from epochal.sweeps import controller
from epochal.sweeps.controller import Controller
from epochal.sweeps.inputs import from_json
from epochal.sweeps.searchers.random import RandomParams, RandomSearcher
from epochal.sweeps.trials import Input, Point, Trial, TrialState
from epochal.tracking.trial_runs import Journal
from simulated_sweep import Simulation
from sweep_pieces import sweep_spec

TRIALS = 200
PATIENCE = 20.0
"""Seconds after which a test fails that waits for another thread."""


class PlayedJournal:
    """Has nothing from before, and keeps what it is told."""

    failed = None

    def __init__(self) -> None:
        self.inputs: list[NewInput] = []
        self.heard: Callable[[NewInput], object] = lambda told: None
        """Called with each."""
        self.orders = Orders(lambda: None)
        self.requests: list[SweepRequest] = []
        self.before: list[Input] = []

    def earlier(self, spec: Any) -> list[Any]:
        return []

    def replayed(self) -> tuple[list[Any], list[Any]]:
        return self.before, []

    def asked(self) -> list[SweepRequest]:
        return self.requests

    def ask(self, body: Mapping[str, Any]) -> None:
        """As a user does while the sweep runs."""
        self.requests.append(SweepRequest(len(self.requests) + 1, f"key-{body}", body, datetime.now(UTC), ""))
        self.orders.requested = len(self.requests)

    def tell(self, told: NewInput, changed: TrialRecord | None = None) -> None:
        self.inputs.append(told)
        self.heard(told)

    def change(self, changed: TrialRecord) -> None:
        return


@dataclass
class PlayedTell:
    """Keeps how the sweep stood when that was told."""

    stands: list[SweepProgress] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def swept(self, progress: SweepProgress) -> None:
        self.stands.append(progress)


@dataclass
class PlayedSlot:
    """Trains at once. ``broken``: raises at its second segment."""

    number: int = 0
    broken: bool = False
    trained: int = 0
    before: Callable[[], object] = lambda: None
    """Called before each segment."""
    looked_at: threading.Event = field(default_factory=threading.Event)
    """Set once the conductor has looked at its slots."""

    def train(self, segments: Sequence[TrialSegment]) -> list[Done]:
        self.before()
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
        for slot in self._slots:
            slot.looked_at.set()
        return []

    def overdue(self) -> list[PlayedSlot]:
        return []

    def leaves(self, slot: PlayedSlot) -> bool:
        return False

    def is_leaving(self, slot: PlayedSlot) -> bool:
        return False


def conducted(
    folder: Path,
    tell: PlayedTell,
    *slots: PlayedSlot,
    journal: PlayedJournal | None = None,
    stop: Stop | None = None,
    **sweep: Any,
) -> tuple[Conductor, PlayedJournal]:
    chosen: dict[str, Any] = {"mode": "min", "trials": TRIALS, "pack": "off"}
    spec = sweep_spec(**chosen | sweep)
    journal = journal or PlayedJournal()
    payload = TrainPayload(spec.model_dump(mode="json"), "")
    searched: Any = Sweep(spec, payload, folder, journal, journal.orders)  # type: ignore[arg-type]
    place: Any = object()
    played: Any = tell
    conductor = Conductor(searched, place, played, stop or Stop())
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


def points_of(tell: PlayedTell) -> list[Point]:
    return [trial.point for trial in sorted(tell.stands[-1].trials, key=lambda trial: trial.number)]


class SlowThird(RandomSearcher):
    """Its third suggestion takes until it ``may_end``."""

    begun: threading.Event
    may_end: threading.Event
    in_time = False

    def suggest(self, number: int, history: Sequence[Trial]) -> Point:
        if number == 2:
            self.begun.set()
            type(self).in_time = self.may_end.wait(PATIENCE)
        return super().suggest(number, history)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> type[SlowThird]:
    class Slow(SlowThird):
        begun, may_end = threading.Event(), threading.Event()

    monkeypatch.setattr(controller, "searcher_of", lambda spec: Slow(RandomParams(), spec))
    return Slow


def test_while_one_slot_waits_for_the_searcher_the_segments_of_others_end(
    tmp_path: Path, slow: type[SlowThird]
) -> None:
    """A suggestion of ``gp`` takes seconds."""
    journal, both_train = PlayedJournal(), threading.Event()

    def heard(told: NewInput) -> None:
        if len(journal.inputs) == 2:
            both_train.set()
        if slow.begun.is_set() and told.body["kind"] == "reached":
            slow.may_end.set()

    journal.heard = heard
    slots = (
        PlayedSlot(0, before=lambda: both_train.wait(PATIENCE)),
        PlayedSlot(1, before=lambda: slow.begun.wait(PATIENCE)),
    )
    conductor, _ = conducted(tmp_path, tell := PlayedTell(), *slots, journal=journal, trials=8)
    assert slow.in_time
    assert conductor.ending().reason is Reason.COMPLETED
    drawn = RandomSearcher(RandomParams(), sweep_spec())
    assert points_of(tell) == [drawn.suggest(number, ()) for number in range(8)]


def test_what_a_paused_sweep_was_waiting_for_is_not_trained(tmp_path: Path, slow: type[SlowThird]) -> None:
    stop, slot = Stop(), PlayedSlot()

    def pause() -> None:
        assert slow.begun.wait(PATIENCE)
        stop.request()
        slow.may_end.set()

    threading.Thread(target=pause).start()
    conductor, _ = conducted(tmp_path, PlayedTell(), slot, stop=stop, trials=8)
    assert slow.in_time
    assert conductor.ending().reason is None
    assert slot.trained == 2


def test_one_slot_tries_what_the_controller_alone_would(tmp_path: Path) -> None:
    search = {"name": "tpe", "startup": 4}
    conducted(tmp_path, tell := PlayedTell(), PlayedSlot(), trials=12, search=search)
    spec = sweep_spec(mode="min", trials=12, search=search)
    simulated = Simulation(Controller.of(spec), lambda run: float(run.trial)).run()
    assert points_of(tell) == [trial.point for trial in simulated.controller.trials.values()]


def test_the_run_of_a_cancelled_trial_is_over_once_its_worker_has_ended(tmp_path: Path) -> None:
    """Until it hears of that, it writes metrics, which are not sent of a run that is over, and checkpoints."""
    journal, heard = PlayedJournal(), threading.Event()
    between: list[str] = []

    def state() -> str:
        runs = Journal(tmp_path)
        runs.read()
        return runs.runs[0].state

    class Cancels(PlayedSlot):
        def train(self, segments: Sequence[TrialSegment]) -> list[Done]:
            if self.trained == 0:
                journal.ask({"kind": "cancel", "trial": 0})
                assert heard.wait(PATIENCE)
                between.append(state())
                checkpoints(tmp_path, 0).mkdir(parents=True)
            return super().train(segments)

        def end_trial(self, trial: int) -> None:
            heard.set()

    conducted(tmp_path, tell := PlayedTell(), Cancels(), journal=journal, trials=2)
    assert between == ["RUNNING"]
    assert state() == "STOPPED"
    assert not checkpoints(tmp_path, 0).exists()
    assert [trial.state for trial in tell.stands[-1].trials] == [TrialState.STOPPED, TrialState.COMPLETED]


def test_a_request_that_cannot_be_is_told_and_the_sweep_goes_on(tmp_path: Path) -> None:
    """One of a newer server ended every attempt."""
    journal = PlayedJournal()
    journal.ask({"kind": "cancel", "trial": 7})
    journal.ask({"kind": "transpose", "by": 2})
    conductor, _ = conducted(tmp_path, tell := PlayedTell(), PlayedSlot(), journal=journal, trials=2)
    assert conductor.ending().reason is Reason.COMPLETED
    assert [told.partition(": ")[2].partition(":")[0] for told in tell.notices] == ["trial 7 is to end", "transpose"]


def test_what_is_asked_in_the_moment_of_the_end_is_left_to_the_ledger(tmp_path: Path) -> None:
    """It was taken in by a sweep that ended all the same, and so the ledger, which queues it for what was not, did
    not."""
    journal = PlayedJournal()

    def heard(told: NewInput) -> None:
        if told.body["kind"] == "reached" and told.body["trial"] == 1:
            journal.ask({"kind": "extend", "trials": 2})

    journal.heard = heard
    slot = PlayedSlot()
    slot.before = lambda: slot.looked_at.wait(PATIENCE)
    conductor, _ = conducted(tmp_path, PlayedTell(), slot, journal=journal, trials=2)
    assert conductor.ending().reason is Reason.COMPLETED
    assert "extended" not in {one.body["kind"] for one in journal.inputs}


def test_what_was_asked_of_a_sweep_that_had_ended_is_done_by_the_next_attempt(tmp_path: Path) -> None:
    first = PlayedJournal()
    conducted(tmp_path, PlayedTell(), PlayedSlot(), journal=first, trials=2)
    following = PlayedJournal()
    following.before = [from_json(one.body) for one in first.inputs]
    following.ask({"kind": "extend", "trials": 2})
    conductor, _ = conducted(tmp_path, tell := PlayedTell(), PlayedSlot(), journal=following, trials=2)
    assert conductor.ending().reason is Reason.COMPLETED
    assert [trial.state for trial in tell.stands[-1].trials] == [TrialState.COMPLETED] * 4
