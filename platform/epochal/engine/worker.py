"""What runs inside a worker's process.

The task's generator runs in the process's main thread and passes events on; the training runs in a second thread, so
that the process still answers (heartbeats, logs) while the training computes.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import ray
import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from epochal.engine import gpu, process
from epochal.engine.assignment import Assignment, newer_attempt, older_locks, stop_marker, training_lock
from epochal.engine.code import Package, unpack
from epochal.engine.events import Done, Event, Failed, Heartbeat, Log, Reported, Started
from epochal.engine.failure import of_exception
from epochal.engine.log_tail import LogTail
from epochal.engine.output import Output
from epochal.files import locked
from epochal.own_code import exits_told
from epochal.redaction import trace
from epochal.registry import resolve
from epochal.training.control import Phase, Report
from epochal.training.process_group import Rendezvous, serve
from epochal.training.worker import Worker

HEARTBEAT_SECONDS = 1.0
_POLL_SECONDS = 0.2
_STOP_POLL_SECONDS = 0.1
FENCE_POLL_SECONDS = 0.25
ALONE_SECONDS = 10.0
"""How long an attempt waits for the end of an older one, which has ``FENCE_POLL_SECONDS`` to find out about it."""


@dataclass(frozen=True)
class WorkerContext:
    """What the target gets beside its payload: it is called as ``function(payload, context)``.

    ``rendezvous`` and ``store`` are for ``training.process_group.join``; ``store`` is rank 0's alone. ``folder`` is
    the job's, ``code`` that of the shipped code, where there is any, ``number`` the worker's among all of the
    attempt's. What the function returns is passed to the driver as JSON.
    """

    worker: Worker
    folder: Path
    attempt: int
    control: WorkerControl
    rendezvous: Rendezvous
    store: TCPStore | None
    code: Path | None = None
    number: int = 0


class WorkerControl:
    """The training's link to the outside (``training.control.Control``), by way of the process's main thread."""

    def __init__(self, rank: int, marker: Path, events: queue.SimpleQueue[Event]) -> None:
        self.rank = rank
        self._marker = marker
        self._events = events
        self._stop = False
        self._looked = 0.0
        self.phase: Phase = "setup"
        self.step = 0
        self._stepped = False
        # Each counted by one thread alone.
        self._ticks = self._stages = self._growth = 0

    def stop_requested(self) -> bool:
        now = time.monotonic()
        if not self._stop and now - self._looked >= _STOP_POLL_SECONDS:
            self._looked = now
            with suppress(OSError):  # the storage is away for a moment
                self._stop = self._marker.exists()
        return self._stop

    def begin(self) -> None:
        """Another training begins, after one that has ended."""
        self.phase, self.step, self._stepped = "setup", 0, False

    def tick(self, phase: Phase, step: int) -> None:
        self._stepped = self._stepped or (phase == self.phase == "train" and step > self.step)
        self.phase, self.step = phase, step
        self._ticks += 1

    def saving(self, stage_done: bool) -> None:
        if stage_done:
            self._stages += 1
        else:
            self._growth += 1

    def report(self, report: Report, trial: int | None = None) -> None:
        self._events.put(Reported(self.rank, report, trial))

    def heartbeat(self) -> Heartbeat:
        return Heartbeat(self.rank, self.phase, self.step, self._ticks, self._stages, self._growth, self._stepped)


def work(assignment: Assignment, store_address: tuple[str, int] | None) -> Iterator[Event]:
    """The whole life of one worker: its events, the last of them ``Done`` or ``Failed``. See ``ranks.run``."""
    host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    output = _become(assignment, host)
    threading.Thread(target=_keep_apart, args=(assignment,), name="fence", daemon=True).start()
    tail = LogTail(assignment.log_path)
    with ExitStack() as stack:
        store = None
        if store_address is None:
            rendezvous, store = stack.enter_context(serve(host, assignment.world_size, assignment.setup_seconds))
        else:
            rendezvous = Rendezvous(*store_address, assignment.setup_seconds)
        # Ray lets the process see its own GPU alone.
        device = torch.device("cuda", 0) if assignment.request.gpus else torch.device("cpu")
        node_id = ray.get_runtime_context().get_node_id()
        created, relay = (process.created(psutil.Process(pid)) for pid in (os.getpid(), output.pid))
        offered = (rendezvous.host, rendezvous.port) if store is not None else None
        address = (output.pid, relay)
        yield Started(assignment.rank, os.getpid(), created, node_id, host, str(device), offered, address)
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        worker = Worker(assignment.rank, assignment.world_size, assignment.local_rank, device)
        control = WorkerControl(assignment.rank, stop_marker(assignment.folder, assignment.attempt), events)
        context = WorkerContext(
            worker, assignment.folder, assignment.attempt, control, rendezvous, store, number=assignment.worker
        )
        gpus = ray.get_runtime_context().get_accelerator_ids()["GPU"] if assignment.request.gpus else []
        threading.Thread(target=_train, args=(assignment, context, gpus, events), name="training", daemon=True).start()
        yield from _pass_on(events, control, tail, output)


def _become(assignment: Assignment, host: str) -> Output:
    """Make this process the worker: from here on it does nothing else, and it ends with its attempt."""
    process.taken.set()
    process.die_with_parent()
    process.heed_children()
    output = Output(assignment.log_path, assignment.request.secrets)
    # Ray's own copy: it has moved the process's arguments, where the setproctitle package does not find them.
    raylet: Any = ray._raylet
    raylet.setproctitle(f"epochal:{assignment.request.job}:rank{assignment.worker}")
    process.restore_priority()
    process.withhold_credentials()  # of nodes that others have started
    os.environ["OMP_NUM_THREADS"] = str(assignment.request.threads)
    process.connect_from(host)
    # Else CUDA counts the fastest first, and Ray as NVML does.
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ.update(assignment.request.env)  # last: the job may have it otherwise
    return output


def _keep_apart(assignment: Assignment) -> None:
    """End this process, and save nothing, once a newer attempt at its job has begun.

    Whoever began it believes this one dead: its agent is gone or cut off, and did not end it.
    """
    newer: int | None = None
    while newer is None:
        time.sleep(FENCE_POLL_SECONDS)
        with suppress(OSError):  # the storage is away for a moment
            newer = newer_attempt(assignment.folder, assignment.attempt)
    with suppress(OSError):  # its disk is full
        os.write(2, f"attempt {newer} has begun elsewhere: attempt {assignment.attempt} ends\n".encode())
    process.kill_tree(os.getpid(), process.created(psutil.Process()))


@contextmanager
def _alone(assignment: Assignment) -> Iterator[None]:
    """Within the ``with`` block no other attempt at the job trains, where its folder is on a file system with locks.

    Rank 0 speaks for all: the others do nothing without it. Otherwise what an older attempt wrote until its end would
    be read half by this one.
    """
    if assignment.rank != 0:
        yield
        return
    folder, attempt = assignment.folder, assignment.attempt
    for older in older_locks(folder, attempt):
        with locked(older, ALONE_SECONDS) as ended:
            pass
        if not ended:
            with suppress(OSError):
                os.write(2, f"an older attempt has not ended within {ALONE_SECONDS:g} s\n".encode())
    with locked(training_lock(folder, attempt, assignment.first_worker), ALONE_SECONDS):
        yield


def _train(assignment: Assignment, context: WorkerContext, gpus: list[str], events: queue.SimpleQueue[Event]) -> None:
    rank = assignment.rank
    killed = process.killed_for_memory()
    # A warm-up that has begun in this process is waited for: both change all of it.
    with process.warming_up:
        pass

    def fail(error: BaseException, trace: str) -> None:
        events.put(of_exception(rank, error, trace, system_killed=process.killed_for_memory() > killed))

    try:
        with exits_told(lambda error: fail(error, "".join(traceback.format_stack()))):
            # torch was imported before OMP_NUM_THREADS was set, and OpenMP keeps the number by thread.
            torch.set_num_threads(assignment.request.threads)
            if assignment.request.gpus:
                gpu.check(gpus)
            if assignment.request.package is not None:
                context = replace(context, code=_import_from(assignment.request.package))
            with process.made_to_stay():
                function: Any = resolve(assignment.target)
            with _alone(assignment):
                # What is no JSON is the target's fault, and is told as such here; `wire.encode` is too late for that.
                result = json.loads(json.dumps(function(assignment.payload, context)))
            events.put(Done(rank, result))
    # SystemExit too: a thread that ends by it ends without a word.
    except BaseException as error:
        fail(error, trace())


def _import_from(package: Package) -> Path:
    """Put the package's folder first on the import path, for processes started from here too."""
    node: Any = ray._private.worker._global_node
    unpacked = unpack(package.path, package.digest, Path(node.get_session_dir_path()) / "epochal-code")
    folder = str(unpacked)
    sys.path.insert(0, folder)
    existing = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{folder}{os.pathsep}{existing}" if existing else folder
    return unpacked


def _pass_on(
    events: queue.SimpleQueue[Event], control: WorkerControl, tail: LogTail, output: Output
) -> Iterator[Event]:
    rank = control.rank
    beat = time.monotonic()
    event: Event | None = None
    begun = ""
    while not isinstance(event, Done | Failed):
        try:
            event = events.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            event = None
        now = time.monotonic()
        last = isinstance(event, Done | Failed)
        if last:
            # The last words come before the event that ends the stream.
            output.flush()
        if last or now - beat >= HEARTBEAT_SECONDS:
            before, (text, begun) = begun, tail.read(final=last)
            if text or begun != before:
                yield Log(rank, text, begun)
        if now - beat >= HEARTBEAT_SECONDS:
            beat = now
            yield control.heartbeat()
        if event is not None:
            yield event
