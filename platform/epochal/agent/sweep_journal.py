"""What a sweep's controller was told, on its way to the ledger, and what users ask of it on the way back.

Inputs are written down in batches, by a thread, in the order in which the controller took them in. What an agent that
dies had not written yet is forgotten with it: the next attempt replays what is there, and trains the rest again.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from epochal.agent.port import JobSource
from epochal.backoff import pause_after
from epochal.errors import ConflictError, EpochalError, UnreachableError
from epochal.ledger.states import JobKind
from epochal.ledger.sweep_values import NewInput, SweepRequest, TrialRecord
from epochal.ledger.values import Lease
from epochal.spec.job import JobSpec
from epochal.sweeps.inputs import from_json
from epochal.sweeps.trials import Input, Trial

EVERY_SECONDS = 0.2
"""Between two batches."""

_LAST_SECONDS = 60.0
"""How long the end of an attempt waits for a ledger that does not answer."""

_MOST = 2000
"""Inputs of one batch."""

_logger = logging.getLogger(__name__)

T = TypeVar("T")


class SweepJournal:
    """Of one attempt. Use it as a context manager: at its end what is left is written down."""

    def __init__(self, source: JobSource, lease: Lease, given_up: Callable[[], bool]) -> None:
        self._source = source
        self._lease = lease
        self._given_up = given_up
        self._newest = 0
        self._told: list[NewInput] = []
        self._changed: dict[int, TrialRecord] = {}
        self._heard: set[str] = set()
        self._requests = 0
        self._waiting = threading.Condition()
        self._closed_at = math.inf
        self.failed: EpochalError | None = None
        """What keeps the ledger from taking it, where that is not because the attempt is over."""
        self._thread = threading.Thread(target=self._run, name=f"journal-{lease.job_id}", daemon=True)

    def __enter__(self) -> SweepJournal:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._waiting:
            self._closed_at = time.monotonic()
            self._waiting.notify_all()
        self._thread.join()

    def replayed(self) -> list[Input]:
        """What earlier attempts have written down, in order. To be asked first.

        Raises:
            UnreachableError: the ledger does not answer, and it is given up.
            ConflictError: another version wrote something that this one cannot read.
        """
        stored = self._patiently(lambda: self._source.inputs(self._lease.job_id))
        self._newest = stored[-1].seq if stored else 0
        self._heard = {one.key for one in stored if one.key is not None}
        return [from_json(one.body) for one in stored]

    def earlier(self, spec: JobSpec) -> list[Trial]:
        """The trials of the sweep that the searcher is to learn from too, with negative numbers.

        Raises:
            NotFoundError: there is no such job.
            ConflictError: it is no sweep.
        """
        named = spec.sweep.search.earlier if spec.sweep is not None else None
        if named is None:
            return []
        job = self._patiently(lambda: self._source.job(named))
        if job.kind is not JobKind.SWEEP:
            raise ConflictError(f"sweep.search.from: {job.id} is no sweep", "name a sweep, or remove it")
        found = self._patiently(lambda: self._source.trials(job.id))
        return [replace(one.trial, number=one.number - len(found)) for one in found]

    def asked(self) -> list[SweepRequest]:
        """What users have asked and the controller was not told yet.

        Raises:
            UnreachableError: the ledger does not answer, and it is given up.
        """
        found = self._patiently(lambda: self._source.requests(self._lease.job_id, self._requests))
        self._requests = found[-1].seq if found else self._requests
        return [one for one in found if one.key not in self._heard]

    def tell(self, told: NewInput, changed: TrialRecord | None = None) -> None:
        """Have it written down that the controller took this in, and what became of a trial with it."""
        with self._waiting:
            self._told.append(told)
            if changed is not None:
                self._changed[changed.number] = changed

    def change(self, changed: TrialRecord) -> None:
        """Have it written down how a trial stands."""
        with self._waiting:
            self._changed[changed.number] = changed

    def _run(self) -> None:
        try:
            while self._closed_at == math.inf:
                with self._waiting:
                    self._waiting.wait(EVERY_SECONDS)
                self._write()
            while self._told or self._changed:
                self._write()
        except EpochalError as error:
            _logger.warning("%s: the ledger does not hear of the sweep: %s", self._lease.job_id, error)
            self.failed = error

    def _write(self) -> None:
        with self._waiting:
            told, changed = self._told[:_MOST], list(self._changed.values())
            if not told and not changed:
                return
            self._changed.clear()
        newest = self._patiently(lambda: self._source.append_inputs(self._lease, self._newest, told, changed))
        with self._waiting:
            del self._told[: len(told)]
        self._newest = newest

    def _patiently(self, call: Callable[[], T]) -> T:
        failures = 0
        while True:
            try:
                return call()
            except UnreachableError:
                if self._given_up() or time.monotonic() - self._closed_at > _LAST_SECONDS:
                    raise
            failures += 1
            time.sleep(pause_after(failures))
