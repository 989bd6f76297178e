"""The slots of a sweep: as many as the ledger lets it have workers for, and its place has room for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable

from epochal.engine.place import Place, Seat
from epochal.engine.slot import Slot
from epochal.ledger.values import Renewed

PATIENCE = 60.0
"""Seconds that a slot which is to be given up has for its segment; then its trial saves its state, to go on later."""

_TRY_SECONDS = 5.0
"""Between two looks for room that the ledger says is there."""


class Orders:
    """What the ledger has said with the newest renewal of the lease. ``placed`` is to be called once the sweep's place
    has changed."""

    def __init__(self, placed: Callable[[], None]) -> None:
        self.placed = placed
        self.requested = 0
        """The number of the newest request of the sweep's users."""
        self.workers: int | None = None
        """How many the sweep may have now; None: as many as it has asked for, as there is nobody else to decide."""

    def heard(self, renewed: Renewed) -> None:
        self.requested = max(self.requested, renewed.requested)
        self.workers = renewed.granted


class SlotPool:
    """Makes a slot of each group of seats of a ``place``, and changes both as the ``orders`` say. ``resized`` is told
    the numbers of the workers that have a seat.

    ``leaves`` is asked by one slot at a time, each between two segments; all else is for the thread that conducts.
    """

    def __init__(
        self,
        place: Place,
        orders: Orders,
        make: Callable[[int, list[Seat]], Slot],
        resized: Callable[[Collection[int]], None],
    ) -> None:
        self._place = place
        self._orders = orders
        self._make = make
        self._resized = resized
        self._each = place.request.step
        self._slots: dict[int, Slot] = {}
        self._leaving: set[int] = set()
        self._surplus_since = math.inf
        self._tried_at = -math.inf

    def __len__(self) -> int:
        """Those that stay."""
        return len(self._slots) - len(self._leaving)

    def begin(self) -> list[Slot]:
        """Slots over the place as it is."""
        return self._made(self._place.groups())

    def leaves(self, slot: Slot) -> bool:
        """Whether this one is to be given up, as it may be between two segments. The first stays: it samples the
        machine for all."""
        if slot.number != 0 and self.surplus > 0:
            self._leaving.add(slot.number)
        return self.is_leaving(slot)

    def is_leaving(self, slot: Slot) -> bool:
        return slot.number in self._leaving

    def overdue(self) -> list[Slot]:
        """Slots whose trials are to be interrupted, as none has come to the end of its segment for too long."""
        now, surplus = time.monotonic(), self.surplus
        self._surplus_since = min(self._surplus_since, now) if surplus > 0 else math.inf
        if now - self._surplus_since < PATIENCE:
            return []
        self._surplus_since = now  # it takes them a while to save: no others before that has passed again
        return [slot for number, slot in self._slots.items() if number and number not in self._leaving][-surplus:]

    def left(self, slot: Slot) -> None:
        """Its thread has ended: the room of its workers is given back."""
        self._place.give_up(slot.seats)
        del self._slots[slot.number]
        self._leaving.discard(slot.number)
        seats = {of_group[0].group: of_group for of_group in self._place.groups()}
        for stays in self._slots.values():  # another may be the first on its node now
            stays.seats = seats[stays.seats[0].group]
        self._tell()

    def joining(self) -> list[Slot]:
        """Slots in what room the place finds, where more are allowed."""
        missing = -self.surplus
        if missing <= 0 or time.monotonic() - self._tried_at < _TRY_SECONDS:
            return []
        self._tried_at = time.monotonic()
        joined = self._made(self._place.add(missing * self._each))
        if joined:
            self._tell()
        return joined

    @property
    def surplus(self) -> int:
        """How many more there are than are allowed."""
        workers = self._orders.workers
        allowed = self._place.request.workers[1] if workers is None else workers
        return len(self) - max(1, allowed // self._each)

    def _made(self, groups: Iterable[list[Seat]]) -> list[Slot]:
        made = []
        for seats in groups:
            number = next(number for number in range(len(self._slots) + 1) if number not in self._slots)
            self._slots[number] = self._make(number, seats)
            made.append(self._slots[number])
        return made

    def _tell(self) -> None:
        self._orders.placed()
        each = self._each
        self._resized([number * each + worker for number in sorted(self._slots) for worker in range(each)])
