"""What a worker of a sweep does: it is kept, and trains a segment of one trial after another.

Process start, imports, rendezvous and reading the data are paid once; a trial costs its model and its steps.
"""

from __future__ import annotations

import dataclasses
import json
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from epochal.engine import wire
from epochal.engine.events import Done, Event, Failed, redacted
from epochal.engine.failure import of_exception
from epochal.engine.hub import reach
from epochal.engine.payload import TrialSegment, TrialsPayload
from epochal.engine.train import check_secrets, data_folder, keep_example, prepared, sampler
from epochal.errors import NonFiniteError
from epochal.redaction import Redactor, trace
from epochal.spec.job import JobSpec
from epochal.tracking.metric_spool import MetricSpool
from epochal.tracking.recorder import NullRecorder, Recorder
from epochal.training.control import Noted
from epochal.training.fit import fit
from epochal.training.process_group import join
from epochal.training.segment import Segment
from epochal.training.setup import Setup, prepare
from epochal.units import Interval

if TYPE_CHECKING:
    from epochal.engine.worker import WorkerContext

_IDLE_SECONDS = 10.0
"""How often workers without work say that they are there: to the watchdog, and to each other."""

_Message = dict[str, Any]
_IDLE: _Message = {"idle": True}
_END: _Message = {"end": True}


def serve(payload: TrialsPayload, context: WorkerContext) -> dict[str, Any]:
    """Train segments as they come, until there are no more; how many they were.

    A failing trial of a lone worker costs the trial alone. Of several workers those that did not fail wait for the one
    that did, unless all fail alike: then all end, and a new gang is formed.
    """
    began = time.monotonic()
    trials, trained = _Trials(payload, context), 0
    with ExitStack() as stack:
        if context.worker.local_rank == 0:
            stack.enter_context(sampler(context, step=lambda: int(time.monotonic() - began)))
        orders = stack.enter_context(_orders(payload, context)) if context.worker.is_first else None
        stack.enter_context(join(context.worker, context.rendezvous, context.store))
        while (message := _next(orders, context)) is not None:
            context.control.begin(message["segment"]["trial"], message["number"])
            told = trials.train(TrialSegment(**message["segment"]))
            if orders is not None:
                orders.answer(told)
            trained += 1
    return {"segments": trained}


class _Orders:
    """The first worker's end of the connection to the driver."""

    def __init__(self, connection: Connection, context: WorkerContext) -> None:
        self._connection = connection
        self._control = context.control
        self._messages: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="orders", daemon=True).start()

    def answer(self, event: Event) -> None:
        self._connection.send_bytes(wire.encode(event))

    def next(self, seconds: float) -> _Message:
        try:
            return self._messages.get(timeout=seconds)
        except queue.Empty:
            return _IDLE

    def _read(self) -> None:
        while True:
            try:
                message = json.loads(self._connection.recv_bytes())
            except (OSError, EOFError, TypeError):  # a connection that is closed while it is read raises the last
                self._messages.put(_END)
                return
            if "stop" in message:
                self._control.end_segment(message["stop"])
            else:
                self._messages.put(message)


@contextmanager
def _orders(payload: TrialsPayload, context: WorkerContext) -> Iterator[_Orders]:
    connection = reach(payload.hub, payload.key, payload.slot)
    try:
        yield _Orders(connection, context)
    finally:
        connection.close()


def _next(orders: _Orders | None, context: WorkerContext) -> _Message | None:
    """The next segment, the same on every worker; None where there are no more."""
    while not context.control.attempt_ends():
        message = _shared(orders.next(_IDLE_SECONDS) if orders is not None else None, context)
        context.control.tick("setup", 0)
        if "end" in message:
            return None
        if "segment" in message:
            return message
    return None


def _shared(message: _Message | None, context: WorkerContext) -> _Message:
    """The first worker's message, on all."""
    if context.worker.world_size == 1:
        assert message is not None
        return message
    box = [message]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    assert box[0] is not None
    return box[0]


class _Trials:
    """Trains segments, and keeps what trials have in common."""

    def __init__(self, payload: TrialsPayload, context: WorkerContext) -> None:
        self._payload = payload
        self._context = context
        self._known: Setup | None = None
        self._noted: set[str] = set()

    def train(self, segment: TrialSegment) -> Done | Failed:
        """How the segment ended. What ends this worker too is raised."""
        context = self._context
        spec = JobSpec.from_stored(dict(segment.spec))
        try:
            return Done(context.worker.rank, self._train(segment, spec))
        except Exception as error:
            if context.worker.world_size > 1 and not isinstance(error, NonFiniteError):
                raise
            failed = of_exception(context.worker.rank, error, trace())
            told = redacted(failed, Redactor.of_variables(tuple(spec.secrets)))
            assert isinstance(told, Failed)
            return told

    def _train(self, segment: TrialSegment, spec: JobSpec) -> dict[str, Any]:
        context = self._context
        folder = context.folder / segment.folder
        setup = self._prepare(spec)
        recorder = self._recorder(folder)
        try:
            until = Interval(segment.until, segment.unit) if segment.until is not None else None
            part = Segment(True, until, segment.saved, segment.beats)
            result = fit(setup, context.worker, folder, recorder, context.control, part)
        finally:
            recorder.close()
        if context.worker.is_first and result.weights is not None:
            keep_example(setup, folder)
        told = dataclasses.asdict(result)
        return json.loads(json.dumps(told))  # type: ignore[no-any-return]

    def _prepare(self, spec: JobSpec) -> Setup:
        context, first = self._context, self._known is None
        if first:
            check_secrets(spec)
        setup = self._known = prepare(spec, data_folder(self._payload.data_folder, context), self._known)
        if context.worker.is_first and self._payload.slot == 0 and first:
            context.control.report(prepared(setup))
        for note in setup.checked.notes:
            if context.worker.is_first and note not in self._noted:
                self._noted.add(note)
                context.control.report(Noted(note))
        return setup

    def _recorder(self, folder: Path) -> Recorder:
        if not self._context.worker.is_first:
            return NullRecorder()
        return MetricSpool(folder, f"attempt-{self._context.attempt}-rank-0")
