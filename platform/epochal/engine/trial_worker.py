"""What a worker of a sweep does: it is kept, and trains a segment of one trial after another.

Process start, imports, rendezvous and reading the data are paid once; a trial costs its model and its steps.
"""

from __future__ import annotations

import dataclasses
import json
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
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
from epochal.errors import NonFiniteError, UnreachableError
from epochal.redaction import Redactor, named, trace
from epochal.spec.job import JobSpec
from epochal.tracking.metric_spool import MetricSpool
from epochal.tracking.recorder import NullRecorder, Recorder
from epochal.training.control import Noted, Phase, Report
from epochal.training.fit import FitResult, fit
from epochal.training.pack import Member, fit_pack
from epochal.training.process_group import join
from epochal.training.segment import Segment
from epochal.training.setup import Setup, prepare
from epochal.training.worker import Worker
from epochal.units import Interval

if TYPE_CHECKING:
    from epochal.engine.worker import WorkerContext, WorkerControl

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
            # Its axis is seconds: the steps of one trial do not follow those of another.
            stack.enter_context(sampler(context, step=lambda: int(time.monotonic() - began)))
        orders: _Orders | None = None
        if context.worker.is_first:
            orders = _Orders(stack.enter_context(reach(payload.hub, payload.key, payload.caller)))
        stack.enter_context(join(context.worker, context.rendezvous, context.store))
        while (message := _next(orders, context)) is not None:
            context.control.begin()
            number, segments = message["number"], [TrialSegment(**one) for one in message["segments"]]
            for told in trials.train(segments, _Ends(orders, number)):
                if orders is not None:
                    orders.answer(told)
            trained += len(segments)
    return {"segments": trained}


class _Orders:
    """The first worker's end of the connection to the driver."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.ended: set[tuple[int, int]] = set()
        """By the number of the message, and of the trial in it: what is to save its state and end."""
        self._messages: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="orders", daemon=True).start()

    def answer(self, event: Event) -> None:
        try:
            self._connection.send_bytes(wire.encode(event))
        except OSError as error:
            raise UnreachableError(f"the agent of the sweep has hung up: {named(error)}") from error

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
                self.ended.add((message["stop"], message["trial"]))
            else:
                self._messages.put(message)


def _next(orders: _Orders | None, context: WorkerContext) -> _Message | None:
    """The next segment, the same on every worker; None where there are no more."""
    while not context.control.stop_requested():
        message = _shared(orders.next(_IDLE_SECONDS) if orders is not None else None, context)
        context.control.tick("setup", 0)
        if "end" in message:
            return None
        if "segments" in message:
            return message
    return None


def _shared(message: _Message | None, context: WorkerContext) -> _Message:
    """The first worker's message, on all."""
    if context.worker.world_size == 1:
        assert message is not None
        return message
    box = [message]
    # On the CPU, by gloo: NCCL would keep the GPUs busy with waiting.
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    assert box[0] is not None
    return box[0]


@dataclass(frozen=True)
class _Ends:
    """Which trials of a message are to end before their segments do, as the first worker hears."""

    orders: _Orders | None
    number: int

    def __contains__(self, trial: int) -> bool:
        return self.orders is not None and (self.number, trial) in self.orders.ended


@dataclass(frozen=True)
class _TrialControl:
    """The link of one trial to the outside (``training.control.Control``)."""

    control: WorkerControl
    trial: int
    ends: _Ends

    def stop_requested(self) -> bool:
        return self.control.stop_requested() or self.trial in self.ends

    def tick(self, phase: Phase, step: int) -> None:
        self.control.tick(phase, step)

    def saving(self, stage_done: bool) -> None:
        self.control.saving(stage_done)

    def report(self, report: Report) -> None:
        self.control.report(report, self.trial)


def _fitted(member: Member, worker: Worker) -> FitResult | Exception:
    try:
        return fit(member.setup, worker, member.folder, member.recorder, member.control, member.segment)
    except Exception as error:
        return error


def _unkept(member: Member) -> Exception | None:
    """Why what it has recorded is not kept; None where it is."""
    try:
        member.recorder.close()
    except Exception as error:
        return error
    return None


class _Trials:
    """Trains segments, and keeps what trials have in common."""

    def __init__(self, payload: TrialsPayload, context: WorkerContext) -> None:
        self._payload = payload
        self._context = context
        self._known: Setup | None = None
        self._noted: set[str] = set()

    def train(self, segments: Sequence[TrialSegment], ends: _Ends) -> list[Done | Failed]:
        """How each segment ended; several train as a pack. What ends this worker too is raised."""
        members: dict[int, Member] = {}
        failed: dict[int, Failed] = {}
        for segment in segments:
            spec = JobSpec.from_stored(dict(segment.spec))
            try:
                members[segment.trial] = self._member(segment, spec, ends)
            except Exception as error:
                failed[segment.trial] = self._failed(error, spec)
        if len(members) > 1:
            packed = fit_pack(list(members.values()), self._context.worker)
            outcomes, why_alone = packed.outcomes, packed.why_alone
            # What they have recorded is on the disk before they have ended: at once for all, who would wait one by one.
            with ThreadPoolExecutor(len(members)) as threads:
                unkept = list(threads.map(_unkept, members.values()))
        else:
            outcomes = tuple(_fitted(member, self._context.worker) for member in members.values())
            unkept, why_alone = list(map(_unkept, members.values())), ""
        told = {
            trial: self._told(member, error or outcome, why_alone)
            for (trial, member), outcome, error in zip(members.items(), outcomes, unkept, strict=True)
        }
        return [failed.get(segment.trial) or told[segment.trial] for segment in segments]

    def _member(self, segment: TrialSegment, spec: JobSpec, ends: _Ends) -> Member:
        folder = self._context.folder / segment.folder
        until = Interval(segment.until, segment.unit) if segment.until is not None else None
        return Member(
            setup=self._prepare(spec),
            folder=folder,
            recorder=self._recorder(folder),
            control=_TrialControl(self._context.control, segment.trial, ends),
            segment=Segment(True, until, segment.saved, segment.beats, trial=True),
        )

    def _told(self, member: Member, outcome: FitResult | Exception, why_alone: str) -> Done | Failed:
        worker = self._context.worker
        try:
            if isinstance(outcome, Exception):
                # Raised, since `trace` formats the exception that is being handled.
                raise outcome
            if worker.is_first and outcome.weights is not None:
                keep_example(member.setup, member.folder)
        except Exception as error:
            return self._failed(error, member.setup.spec)
        return Done(worker.rank, {**dataclasses.asdict(outcome), "why_alone": why_alone})

    def _failed(self, error: Exception, spec: JobSpec) -> Failed:
        worker = self._context.worker
        if worker.world_size > 1 and not isinstance(error, NonFiniteError):
            raise error
        # An answer goes through the hub, and so past `ranks.run`, which redacts all else.
        told = redacted(of_exception(worker.rank, error, trace()), Redactor.of_variables(tuple(spec.secrets)))
        assert isinstance(told, Failed)
        return told

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
