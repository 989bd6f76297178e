"""A round of no-op tasks: each imports what a worker needs, and holds its process until all have."""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

import ray

from epochal.engine import process, wire
from epochal.registry import resolve

MODULES = ("torch", "torch.distributed", "epochal.engine.ranks", "epochal.engine.worker", "epochal.engine.train")
"""Imported by a warm worker before it is needed."""

WARM_UP = "epochal.training.warm_up:warm_up"
"""Called after that. By name, since it imports torch, which the driver can do without."""

_PRELOAD_SECONDS = 90.0
_RELEASE_SECONDS = 2.0


@dataclass(frozen=True)
class WarmUpPolicy:
    """How a round of no-op tasks prepares its processes: ``gentle`` ones behind everything else on the machine.

    ``rest`` is how long, in seconds, a process must have been idle before the warm-up.
    """

    gentle: bool = False
    rest: float = 0.0


WAITED_FOR = WarmUpPolicy(rest=2.0)
"""A gang that waits for its first processes would wait for the warm-up too."""


@dataclass(frozen=True)
class Gate:
    """What a round of no-op tasks waits for: a key in the cluster's store, looked at every ``seconds``. It stays there.

    Cancelling the tasks would be quicker to write, but the interrupt may hit Ray's own code in the worker and end it.
    """

    key: bytes
    seconds: float

    @classmethod
    def new(cls, tasks: int) -> Gate:
        """For that many tasks; the more they are, the less often each looks."""
        return cls(b"epochal-gate-" + uuid.uuid4().bytes, max(0.01, 0.0005 * tasks))

    def open(self) -> None:
        _store().internal_kv_put(self.key, b"open", True, None)

    def is_open(self) -> bool:
        return bool(_store().internal_kv_exists(self.key, None))


def _store() -> Any:
    worker: Any = ray._private.worker.global_worker
    return worker.gcs_client


class Warmed(NamedTuple):
    """A process that has imported everything, its name as a worker of Ray, and the time by its node's clock."""

    pid: int
    worker_id: str
    now: float


def hold(modules: tuple[str, ...], policy: WarmUpPolicy, gate: Gate) -> Iterator[bytes]:
    """The no-op task: import ``modules``, tell the process, and keep the process busy until the gate opens.

    The import has a thread of its own, which outlives the task: one that ends before leaves no half-imported module,
    a gentle one lowers the priority of that thread alone, and the warm-up goes on in the idle process.
    """
    loaded = threading.Event()
    threading.Thread(target=_load, args=(modules, policy, loaded), daemon=True).start()
    while not loaded.wait(gate.seconds) and not gate.is_open():
        pass
    if loaded.is_set():
        yield json.dumps([os.getpid(), ray.get_runtime_context().get_worker_id(), time.time()]).encode()
    while not gate.is_open():
        time.sleep(gate.seconds)


def _load(modules: tuple[str, ...], policy: WarmUpPolicy, loaded: threading.Event) -> None:
    """Stops after the module it is at once a gang has the process."""
    import numpy  # noqa: F401 - starts its threads, which would inherit the low priority

    if policy.gentle:
        process.lower_priority()
    with process.made_to_stay():
        for module in modules:
            if process.taken.is_set():
                return
            with suppress(ImportError):
                import_module(module)
    loaded.set()
    process.taken.wait(policy.rest)
    with process.warming_up:
        if not process.taken.is_set():
            with process.made_to_stay():
                warm_up: Any = resolve(WARM_UP)
                warm_up()


# The process is to stay, unlike one that has run `ranks.run`.
_HOLD = ray.remote(num_cpus=0, max_retries=0, max_calls=0, num_returns="streaming")(hold)


class Round:
    """No-op tasks that hold a process each."""

    def __init__(self, placements: Iterable[Mapping[str, Any]], policy: WarmUpPolicy) -> None:
        options = list(placements)
        self._gate = Gate.new(len(options))
        self.tasks: list[Any] = [_HOLD.options(**one).remote(MODULES, policy, self._gate) for one in options]
        self._waiting = list(self.tasks)

    @property
    def complete(self) -> bool:
        """Whether all have imported what they should."""
        return not self._waiting

    def wait(self, timeout: float) -> list[Any]:
        """The tasks that have something to tell, waiting up to ``timeout`` seconds for the first."""
        ready: list[Any] = ray.wait(self._waiting, num_returns=1, timeout=timeout)[0]
        return ready

    def loaded(self, ready: Iterable[Any]) -> Iterator[tuple[Any, Warmed]]:
        """The tasks among ``ready`` that have imported everything, each with its process."""
        for task in ready:
            self._waiting.remove(task)
            # As with ``wire.receive``, whatever came from there is not unpickled.
            with suppress(ray.exceptions.RayError, ValueError, TypeError):
                if told := wire.receive_bytes(task):
                    yield task, Warmed(*json.loads(told))

    def release(self) -> None:
        """Let the tasks end, and wait for those that hold a process with everything imported: it is idle then."""
        self._gate.open()
        deadline = time.monotonic() + _RELEASE_SECONDS
        for task in self.tasks:
            if task not in self._waiting:
                with suppress(ray.exceptions.RayError, ValueError):
                    while ray.wait([task], timeout=max(0.0, deadline - time.monotonic()))[0]:
                        if wire.receive_bytes(task) is None:
                            break


def preload(placements: Iterable[Mapping[str, Any]], given_up: Callable[[], bool]) -> None:
    """Start a process for each placement (options of a Ray task) where none is idle, all at the same time.

    Returns when all have imported what a worker needs and are idle, once nobody wants them, or after a minute and a
    half.
    """
    crowd = Round(placements, WAITED_FOR)
    deadline = time.monotonic() + _PRELOAD_SECONDS
    while not crowd.complete and not given_up() and time.monotonic() < deadline:
        list(crowd.loaded(crowd.wait(1.0)))
    crowd.release()
