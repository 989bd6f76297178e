"""A slot of a sweep: a group of a place's seats, in which a gang is kept from one trial to the next."""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

from epochal.engine import wire
from epochal.engine.events import Done, Failed, Log, Reported, Started
from epochal.engine.failure import FailureKind
from epochal.engine.gang import Gang, Stop
from epochal.engine.hub import Hub
from epochal.engine.payload import TRIALS, TrialSegment, TrialsPayload
from epochal.engine.place import Place, Seat
from epochal.engine.watchdog import DEFAULT_LIMITS
from epochal.redaction import named, said
from epochal.training.control import Phase, Report

_LOOK_SECONDS = 0.25
_VERDICT_SECONDS = 30.0
"""How long a slot whose connection broke waits for what became of its workers."""

_END_SECONDS = 10.0

LASTING = (FailureKind.USER_ERROR, FailureKind.NON_FINITE_LOSS)
"""After such a failure of one trial its worker trains the next; after others nobody knows in what state it is."""


class Listener(Protocol):
    """Who hears what a slot's workers tell beside their answers. Returns quickly; called from several threads."""

    def started(self, workers: Mapping[int, Started]) -> None:
        """A gang was formed: its workers by their numbers among all of the attempt's."""

    def log(self, rank: int, text: str, begun: str) -> None:
        """What a worker printed."""

    def report(self, trial: int | None, report: Report) -> None:
        """What the training of a trial tells."""


@dataclass(frozen=True)
class Attempt:
    """What all slots of an attempt have in common."""

    place: Place
    folder: Path
    number: int
    data_folder: str
    stop: Stop
    hub: Hub
    listener: Listener
    limits: Mapping[Phase, float] = field(default_factory=lambda: DEFAULT_LIMITS)


class Slot:
    """Trains one segment after another. One thread uses it; ``end_trial`` is safe to call from another."""

    def __init__(self, attempt: Attempt, number: int, seats: list[Seat]) -> None:
        self.number = number
        self.seats = seats
        self._attempt = attempt
        self._kept: _Kept | None = None
        self._message = 0
        self._ending: set[int] = set()

    def train(self, segments: Sequence[TrialSegment]) -> list[Done | Failed | None]:
        """How each segment ended; None where the attempt was stopped before it began. Several train as a pack.

        After a failure that may have hurt the workers the next segment has new ones; so it has where others are the
        first on their nodes now.
        """
        if self._kept is not None and _firsts(self._kept.seats) != _firsts(self.seats):
            self.close()
        if self._kept is None or self._kept.is_over:
            self._kept = _Kept(self._attempt, self.number, self.seats)
        self._message += 1
        ended = self._kept.train(segments, self._message, self._ending)
        self._ending.clear()
        if any(isinstance(one, Failed) and one.kind not in LASTING for one in ended):
            self.close()
        return ended

    def end_trial(self, trial: int) -> None:
        """Have that trial, which is trained now or next, save its state and end."""
        self._ending.add(trial)  # first: a message that is sent at this very moment looks here, or is known below
        if (kept := self._kept) is not None:
            kept.end(self._message, trial)

    def close(self) -> None:
        """End the workers."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()


def _firsts(seats: Sequence[Seat]) -> list[bool]:
    """Who samples the machine."""
    return [seat.local_rank == 0 for seat in seats]


class _Kept:
    """One gang, from when it is formed to its end."""

    def __init__(self, attempt: Attempt, number: int, seats: list[Seat]) -> None:
        self._attempt = attempt
        self._number = number
        # The slots of a sweep have as many seats each.
        self._first_worker = number * len(seats)
        self._caller = attempt.hub.caller()
        self._gang = Gang(attempt.place, attempt.stop, attempt.limits, seats, self._first_worker)
        self._failed: Failed | None = None
        self._over = threading.Event()
        self._closing = threading.Event()
        self._connection: Connection | None = None
        self._sending = threading.Lock()
        self._thread = threading.Thread(target=self._follow, name=f"slot-{number}", daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    @property
    def seats(self) -> list[Seat]:
        return self._gang.seats

    def train(
        self, segments: Sequence[TrialSegment], number: int, ending: Collection[int]
    ) -> list[Done | Failed | None]:
        """``ending``: the trials that were to end before they, or the connection, were there."""
        if self._connection is None:
            self._connection = self._attempt.hub.take(self._caller, self._over.is_set)
        told: list[Done | Failed | None] = []
        sent = {"segments": [asdict(segment) for segment in segments], "number": number}
        if self._connection is not None and self._send(sent):
            for trial in tuple(ending):
                self.end(number, trial)
            with suppress(OSError, EOFError):
                while len(told) < len(segments) and not self._over.is_set():
                    if self._connection.poll(_LOOK_SECONDS):
                        told.append(self._answer(self._connection.recv_bytes()))
        if len(told) < len(segments):
            told += [self._verdict()] * (len(segments) - len(told))
        return told

    def _verdict(self) -> Failed | None:
        """What became of workers that do not answer."""
        self._over.wait(_VERDICT_SECONDS)
        if self._failed is None and not self._attempt.stop.requested:
            return Failed(0, FailureKind.INFRASTRUCTURE, "the workers of a slot ended without a word")
        return self._failed

    def end(self, number: int, trial: int) -> None:
        self._send({"stop": number, "trial": trial})

    def close(self) -> None:
        """Have the workers end by themselves; kill those that do not."""
        self._send({"end": True})
        self._over.wait(0.0 if self._failed else _END_SECONDS)
        self._closing.set()  # heeded with the gang's next event, of which there is one a second
        self._thread.join(_END_SECONDS)
        if self._connection is not None:
            self._connection.close()

    def _send(self, message: Mapping[str, object]) -> bool:
        with self._sending, suppress(OSError):
            if self._connection is not None:
                self._connection.send_bytes(json.dumps(message).encode())
                return True
        return False

    def _answer(self, message: bytes) -> Done | Failed:
        try:
            event = wire.decode(message)
        except ValueError as error:
            return Failed(0, FailureKind.USER_ERROR, f"what the worker told is {said(error)}")
        assert isinstance(event, Done | Failed)
        return event

    def _follow(self) -> None:
        """The gang's own events: who started, what is printed, who died or hangs."""
        attempt, started = self._attempt, {}
        hub = attempt.hub
        payload = TrialsPayload(attempt.data_folder, hub.address, hub.key, self._caller, self._number)
        try:
            with closing(self._gang.run(TRIALS, payload, attempt.folder, attempt.number)) as events:
                for event in events:
                    if isinstance(event, Failed):
                        self._failed = event
                    elif isinstance(event, Log):
                        attempt.listener.log(self._first_worker + event.rank, event.text, event.begun)
                    elif isinstance(event, Reported):
                        attempt.listener.report(event.trial, event.report)
                    elif isinstance(event, Started):
                        started[self._first_worker + event.rank] = event
                        if len(started) == self._gang.world_size:
                            attempt.listener.started(started)
                    if self._closing.is_set():
                        break
        except Exception as error:
            self._failed = Failed(0, FailureKind.INFRASTRUCTURE, named(error))
        finally:
            self._over.set()
