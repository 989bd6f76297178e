"""What a slot tells its workers, which are played; real ones: ``test_slots.py``."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from types import SimpleNamespace
from typing import Any

import pytest

from epochal.engine import slot as slots
from epochal.engine import wire
from epochal.engine.events import Done, Heartbeat
from epochal.engine.gang import Stop
from epochal.engine.payload import TrialSegment
from epochal.engine.slot import Slot


class End:
    """One of a connection's two."""

    def __init__(self, sent: Queue[bytes], received: Queue[bytes]) -> None:
        self.send_bytes = sent.put
        self.recv_bytes = received.get
        self._received = received

    def poll(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._received.empty() and time.monotonic() < deadline:
            time.sleep(0.005)
        return not self._received.empty()

    def close(self) -> None:
        return


class Worker:
    """Keeps what it is told. A segment is done once it is asked to stop, or nothing more comes for a moment."""

    def __init__(self, connection: End) -> None:
        self.told: list[Any] = []
        self.ended = threading.Event()
        self._connection = connection
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while "end" not in (message := json.loads(self._connection.recv_bytes())):
            if "stop" in message:
                continue  # of a message that is done
            self.told.append(message["number"])
            stopped = self._connection.poll(0.2)
            if stopped:
                stop = json.loads(self._connection.recv_bytes())
                self.told.append((stop["stop"], stop["trial"]))
            self._connection.send_bytes(wire.encode(Done(0, {"state": "stopped" if stopped else "completed"})))
        self.ended.set()


@pytest.fixture
def slot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[Slot, Worker]]:
    here, there = Queue[bytes](), Queue[bytes]()
    ours, worker = End(there, here), Worker(End(here, there))

    class PlayedGang:
        world_size = 1

        def __init__(self, place: object, stop: object, limits: object, seats: list[Any], first_worker: int) -> None:
            self.seats = seats

        def run(self, *arguments: object) -> Iterator[Heartbeat]:
            while not worker.ended.is_set():
                time.sleep(0.01)
                yield Heartbeat(0, "setup", 0, 0)

    monkeypatch.setattr(slots, "Gang", PlayedGang)
    hub: Any = SimpleNamespace(caller=lambda: 1, take=lambda caller, given_up: ours, address=("", 0), key="")
    place: Any = None
    attempt = slots.Attempt(place, tmp_path, 1, "", Stop(), hub, listener=place)
    seat: Any = SimpleNamespace(local_rank=0)
    made = Slot(attempt, 0, [seat])
    yield made, worker
    made.close()


def segment(trial: int) -> TrialSegment:
    return TrialSegment(trial, "", {}, None, "epochs", saved=False)


def states(slot: Slot, trial: int) -> list[str]:
    return [one.result["state"] for one in slot.train([segment(trial)]) if isinstance(one, Done)]


def test_a_trial_that_is_ended_before_its_workers_are_there_ends(slot: tuple[Slot, Worker]) -> None:
    """Between a slot's being given a trial and its telling the workers, users and the end of the sweep are heard."""
    one, worker = slot
    one.end_trial(0)
    assert states(one, 0) == ["stopped"]
    assert states(one, 1) == ["completed"]
    one.end_trial(2)
    assert states(one, 2) == ["stopped"]
    assert states(one, 2) == ["completed"], "it was ended once"
    assert worker.told == [1, (1, 0), 2, 3, (3, 2), 4]
