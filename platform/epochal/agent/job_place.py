"""The place of one job, from its first attempt to its last."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from epochal.agent.booking import Bookings
from epochal.agent.program import demand_of
from epochal.engine.connection import Connection
from epochal.engine.place import GangRequest, Place, reserve
from epochal.ledger.capacity import Group
from epochal.ledger.values import Lease


class JobPlace:
    """Reserves the place of a job, keeps it from one attempt to the next, and has it in the agent's ``bookings``.

    ``held`` is None while there is none. ``groups`` tells of which nodes the cluster could have more.
    """

    def __init__(
        self, cluster: Connection, bookings: Bookings, groups: Callable[[], Sequence[Group]], lease: Lease
    ) -> None:
        self.held: Place | None = None
        self._cluster = cluster
        self._bookings = bookings
        self._groups = groups
        self._lease = lease

    def expect(self, lease: Lease) -> None:
        """That attempt begins: it needs a place."""
        self._lease = lease
        self._bookings.expect(lease.job_id, lease.epoch, demand_of(lease.job))

    def reserve(self, request: Callable[[], GangRequest], seconds: float, given_up: Callable[[], bool]) -> Place:
        """That of the attempt before, where all of it is there still; else what is asked for within so many seconds.

        Raises:
            CapacityError: as ``engine.place.reserve`` does.
        """
        if self.held is not None and not self.held.is_whole:
            self.release()
            self.expect(self._lease)
        if self.held is None:
            self.held = reserve(self._cluster, request(), seconds, given_up, self._groups)
            self.book()
        return self.held

    def book(self) -> None:
        """The place has changed: book what it is now."""
        if self.held is not None:
            self._bookings.place(self._lease.job_id, self._lease.epoch, self.held.workers_by_node)

    def vacate(self) -> None:
        """Give the place back, and so end the workers in it, while the attempt goes on."""
        self._close()
        self._bookings.place(self._lease.job_id, self._lease.epoch, {})

    def release(self) -> None:
        """Give the place back: the attempt needs none any more. Doing it again does nothing."""
        self._close()
        self._bookings.release(self._lease.job_id, self._lease.epoch)

    def _close(self) -> None:
        place, self.held = self.held, None
        if place is not None:
            place.close()
