"""Tells the source that the agent lives, and what it has free: at once on every change, and regularly otherwise."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epochal.agent.job_folder import storage_id
from epochal.agent.job_runner import Agent
from epochal.agent.run_tracking import as_far_as_the_disk_allows
from epochal.clocks import ADVICE, ahead, beside, is_off
from epochal.errors import ConflictError, EpochalError, UnreachableError

EVERY_SECONDS = 2.5

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identity:
    """``name`` is the agent's over its restarts, ``incarnation`` this process's own."""

    name: str
    incarnation: str

    def __str__(self) -> str:
        """As leases have it."""
        return f"{self.name}/{self.incarnation}"


class Heartbeat:
    """Beats in a thread of its own. ``detail`` is asked for what else to tell. ``heard`` is a file whose time of change
    is that of the last beat that was heard, for who asks whether the agent leases jobs."""

    def __init__(
        self,
        identity: Identity,
        agent: Agent,
        detail: Callable[[], Mapping[str, Any]],
        heard: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._identity = identity
        self._agent = agent
        self._detail = detail
        self._heard = heard
        self._clock = clock
        self._ahead = 0.0
        self._storage = storage_id(agent.home.storage)
        self._due = threading.Event()
        self._closed = False
        self._leaving = False
        self._failing = False
        self.replaced: ConflictError | None = None
        """Set once another process has this agent's name."""
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> bool:
        """Beat for the first time; whether that was heard. To be called until it was.

        Raises:
            EpochalError: the source refuses this agent.
        """
        try:
            self._beat()
        except UnreachableError as error:
            self._say(error)
            return False
        self._say(None)
        self._thread.start()
        return True

    @property
    def warnings(self) -> list[dict[str, str]]:
        """Of this machine's clock, by which workers date what they record; the ledger's own decides on leases."""
        if not is_off(self._ahead):
            return []
        return [{"found": f"its clock is {beside(self._ahead, 'the ledger')}", "advice": ADVICE}]

    def beat_soon(self) -> None:
        """Something has changed. Returns at once."""
        self._due.set()

    def leave(self) -> None:
        """From now on tell that there is room for nothing; returns once that was told, or could not be."""
        self._leaving = True
        self._try_to_beat()

    def close(self) -> None:
        self._closed = True
        self._due.set()
        if self._thread.is_alive():
            self._thread.join(EVERY_SECONDS)

    def _run(self) -> None:
        while not self._closed:
            self._due.wait(EVERY_SECONDS)
            self._due.clear()
            if not self._closed:
                self._try_to_beat()

    def _try_to_beat(self) -> None:
        try:
            self._beat()
            self._say(None)
        except ConflictError as error:
            self.replaced = error
        except Exception as error:
            self._say(error)

    def _beat(self) -> None:
        # Ray, which may be stuck, is asked before anyone has to wait for this turn, and not at all on leaving.
        seen = () if self._leaving else self._agent.cluster.nodes()
        with self._turn:
            nodes, held = self._agent.bookings.told(seen)
            free = () if self._leaving else nodes
            name, incarnation = self._identity.name, self._identity.incarnation
            asked, before = self._clock(), self._ahead
            known = self._agent.source.heartbeat(name, incarnation, free, held, self._detail(), self._storage)
            self._ahead = ahead(known.seen_at, asked, self._clock())
        if self._heard is not None and not self._leaving:
            with as_far_as_the_disk_allows(self._heard):  # the server has heard of it all the same
                self._heard.touch()
        if is_off(self._ahead) and not is_off(before):
            for told in self.warnings:
                _logger.warning("%(found)s; %(advice)s", told)

    def _say(self, error: Exception | None) -> None:
        """Once when it begins to fail, and once when it works again."""
        if error is not None and not self._failing:
            level = logging.WARNING if isinstance(error, EpochalError) else logging.ERROR
            _logger.log(level, "no heartbeat reaches the server, which is tried again: %s", error)
        elif error is None and self._failing:
            _logger.warning("the server answers again")
        self._failing = error is not None
