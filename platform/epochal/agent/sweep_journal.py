"""What a sweep's controller was told, on its way to the ledger, and what users ask of it on the way back.

Inputs go to the ledger in batches, by a thread, in the order in which the controller took them in; and before anything
is done about one, it is in a file of the job's folder. An agent that dies has trained more than the ledger was told,
and left the checkpoints and the metrics of that: an attempt that did not know would take them for those of another
point, or of another length. So what the ledger lacks is read from the file of the attempt before.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from epochal.agent.port import JobSource, patiently
from epochal.errors import ConflictError, EpochalError
from epochal.files import LineWriter, new_lines, write_atomically
from epochal.ledger.states import JobKind
from epochal.ledger.sweep_values import NewInput, SweepRequest, TrialRecord
from epochal.ledger.values import Lease
from epochal.redaction import named, said
from epochal.spec.job import JobSpec
from epochal.sweeps.inputs import from_json
from epochal.sweeps.trials import Input, Trial
from epochal.tracking.trial_runs import trials_folder

EVERY_SECONDS = 0.2
"""Between two batches."""

_LAST_SECONDS = 60.0
"""How long the end of an attempt waits for a ledger that does not answer."""

_MOST = 2000
"""Inputs of one batch."""

_logger = logging.getLogger(__name__)

T = TypeVar("T")


class SweepJournal:
    """Of one attempt. Use it as a context manager: at its end what is left is written down. ``folder`` is the job's."""

    def __init__(self, source: JobSource, lease: Lease, folder: Path, given_up: Callable[[], bool]) -> None:
        self._source = source
        self._lease = lease
        self._ahead = _Ahead(trials_folder(folder), lease.epoch)
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

    def replayed(self) -> tuple[list[Input], list[Input]]:
        """What earlier attempts were told, in order: what the ledger has of it, and what it did not hear any more.

        To be asked first.

        Raises:
            UnreachableError: the ledger does not answer, and it is given up.
            ConflictError: another version wrote something that this one cannot read.
        """
        stored = self._patiently(lambda: self._source.inputs(self._lease.job_id))
        self._newest, epoch = (stored[-1].seq, stored[-1].epoch) if stored else (0, 0)
        self._told = self._ahead.taken_over(self._newest, epoch)
        keys = [*(one.key for one in stored), *(one.key for one in self._told)]
        self._heard = {key for key in keys if key is not None}
        return [from_json(one.body) for one in stored], [from_json(one.body) for one in self._told]

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
        # In order: what is older than one that the controller took in was refused, and stays so, whatever has become
        # of its trial meanwhile.
        taken = max((place for place, one in enumerate(found, 1) if one.key in self._heard), default=0)
        return found[taken:]

    def tell(self, told: NewInput, changed: TrialRecord | None = None) -> None:
        """Have it written down that the controller took this in, and what became of a trial with it."""
        with self._waiting:
            self._told.append(told)
            self._ahead.add(self._newest + len(self._told), told)
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
        except Exception as error:  # whatever it is: the sweep must not go on, and end, without a ledger that knows
            _logger.exception("%s: the ledger does not hear of the sweep", self._lease.job_id)
            self.failed = EpochalError(f"the agent failed: {named(error)}")

    def _write(self) -> None:
        with self._waiting:
            told, changed = self._told[:_MOST], list(self._changed.values())
            if not told and not changed:
                return
            # Before it is sent: what changes meanwhile comes next. Inputs stay until they are known to have arrived.
            self._changed.clear()
        newest = self._patiently(lambda: self._source.append_inputs(self._lease, self._newest, told, changed))
        with self._waiting:
            del self._told[: len(told)]
            self._newest = newest

    def _patiently(self, call: Callable[[], T]) -> T:
        return patiently(call, lambda: self._given_up() or time.monotonic() - self._closed_at > _LAST_SECONDS)


class _Ahead:
    """Inputs in the order of their numbers, in a file an attempt: two agents that both think they hold a job must not
    write into one."""

    def __init__(self, folder: Path, epoch: int) -> None:
        self._folder = folder
        self._path = self._of(epoch)
        self._lines = LineWriter(self._path)

    def _of(self, epoch: int) -> Path:
        return self._folder / f"inputs-{epoch:05d}.jsonl"

    def taken_over(self, newest: int, epoch: int) -> list[NewInput]:
        """What follows the ledger's ``newest`` input, which the attempt ``epoch`` wrote, in the file of the attempt
        before this one. A file that is older than ``epoch`` tells of what the ledger knows better."""
        before = [path for path in sorted(self._folder.glob("inputs-*.jsonl")) if path < self._path]
        found: list[NewInput] = []
        for seq, one in _numbered(before[-1]) if before and before[-1] >= self._of(epoch) else ():
            if seq == newest + len(found) + 1:
                found.append(one)
        write_atomically(self._path, b"".join(_line(seq, one) for seq, one in enumerate(found, newest + 1)))
        for path in before:  # now that all of it is in this one
            path.unlink()
        return found

    def add(self, seq: int, one: NewInput) -> None:
        self._lines.write(_line(seq, one))


def _line(seq: int, one: NewInput) -> bytes:
    return json.dumps({"seq": seq, "key": one.key, "body": one.body}, separators=(",", ":")).encode() + b"\n"


def _numbered(path: Path) -> Iterator[tuple[int, NewInput]]:
    """The inputs of a file up to the first line that cannot be read."""
    for raw in new_lines(path, 0):
        try:
            line = json.loads(raw)
            yield int(line["seq"]), NewInput(line["body"], line["key"])
        except (ValueError, KeyError, TypeError) as error:  # a disk that lost power
            _logger.warning("a line of %s cannot be read: %s", path, said(error))
            return
