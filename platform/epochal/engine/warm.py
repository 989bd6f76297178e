"""Warm workers: idle Ray processes that have torch imported already, so that a gang starts in milliseconds.

Ray gives a task an idle process of the same driver where there is one. So: run as many no-op tasks on a node as
processes are wanted, have each import what a worker needs and hold its process until all are there, then let go.
(An actor never gets an idle process; that is why workers are tasks.) Ray keeps processes of tasks that ask for a GPU
apart, but not those of tasks in a placement group, whose resources have names of their own: so the same idle processes
serve gangs with GPUs and without, and none may have asked CUDA for its devices before (see ``training.warm_up``).

A warm process costs about 0.33 GiB of memory of its own (0.5 GiB resident), and 2 to 3 s of a core to start.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from epochal.engine import process
from epochal.registry import resolve

MODULES = ("torch", "torch.distributed", "epochal.engine.ranks", "epochal.engine.worker", "epochal.engine.train")
"""Imported by a warm worker before it is needed."""

WARM_UP = "epochal.training.warm_up:warm_up"
"""Called after that. By name, since it imports torch, which the driver can do without."""

MOST = 4
"""Warm workers of a node for which no other number was asked: as many as it has CPUs, up to this number."""

LOOK_SECONDS = 5.0
"""How often the nodes are looked at anew: some join later, some go."""

REFILL_SECONDS = 5.0
"""How long after workers were taken new ones are made: the first steps of a job are the ones people wait for."""

_IDLE_REFILL_SECONDS = 0.3
_ROUND_SECONDS = 120.0
_PRELOAD_SECONDS = 90.0
_CLAIM_SECONDS = 30.0
_RELEASE_SECONDS = 2.0

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WarmUpPolicy:
    """How a round of no-op tasks prepares its processes: ``gentle`` ones behind everything else on the machine.

    ``rest`` is how long, in seconds, a process must have been idle before the warm-up.
    """

    gentle: bool = False
    rest: float = 0.0


_WAITED_FOR = WarmUpPolicy(rest=2.0)
"""A gang that waits for its first processes would wait for the warm-up too."""

_BESIDE_A_JOB = WarmUpPolicy(gentle=True)
_BETWEEN_JOBS = WarmUpPolicy()


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


def hold(modules: tuple[str, ...], policy: WarmUpPolicy, gate: Gate) -> Iterator[int]:
    """The no-op task: import ``modules``, tell the process's id, and keep the process busy until the gate opens.

    The import has a thread of its own, which outlives the task: one that ends before leaves no half-imported module,
    a gentle one lowers the priority of that thread alone, and the warm-up goes on in the idle process.
    """
    loaded = threading.Event()
    threading.Thread(target=_load, args=(modules, policy, loaded), daemon=True).start()
    while not loaded.wait(gate.seconds) and not gate.is_open():
        pass
    if loaded.is_set():
        yield os.getpid()
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
                _call(WARM_UP)


def _call(target: str) -> None:
    function: Any = resolve(target)
    function()


_HOLD = ray.remote(num_cpus=0, max_retries=0, max_calls=0, num_returns="streaming")(hold)


class WarmPool:
    """Keeps processes warm on every node, those that join later too, in a thread of its own."""

    def __init__(self) -> None:
        self._target: int | None = 0
        self._idle: defaultdict[str, set[int]] = defaultdict(set)
        self._promised: Counter[str] = Counter()
        self._holding: _Round | None = None
        self._due: float | None = None
        self._policy = _WAITED_FOR
        self._filling = False
        self._claims = 0
        self._closed = False
        self._changed = threading.Condition(threading.RLock())
        self._releasing = threading.Lock()
        self._thread: threading.Thread | None = None

    def keep(self, per_node: int | None) -> None:
        """Have ``per_node`` warm processes on every node, and make new ones as gangs take them. Returns at once.

        None: as many as the node has CPUs, but not more than ``MOST``.
        """
        with self._changed:
            if per_node == self._target:
                return
            self._target = per_node
            self._schedule(0.0, _WAITED_FOR)

    def idle(self) -> Mapping[str, int]:
        """How many warm processes each node has, as far as is known here."""
        with self._changed:
            return {node: len(pids) for node, pids in self._idle.items() if pids}

    @property
    def is_filling(self) -> bool:
        """Whether processes are being made that somebody may be waiting for."""
        return self._filling

    @contextmanager
    def claim(self, need: Mapping[str, int]) -> Iterator[Claim]:
        """Within the ``with`` block no warm process is held back: tasks submitted there get them.

        The claim says whether each node has as many as it is said to ``need``, beside those promised to others; waits
        for those that are being made.
        """
        with self._changed:
            self._claims += 1
            deadline = time.monotonic() + _CLAIM_SECONDS
            while self._short_of(need) and self._filling and time.monotonic() < deadline:
                self._changed.wait(deadline - time.monotonic())
            claim = Claim(self, need if not self._short_of(need) else {})
            self._promised.update(claim.outstanding)
        self.make_way()
        try:
            yield claim
        finally:
            with self._changed:
                self._claims -= 1
                self._promised.subtract(claim.outstanding)
                self._changed.notify_all()

    def take(self, claim: Claim, node_id: str, pid: int) -> None:
        """The gang of that ``claim`` has that process now."""
        with self._changed:
            self._idle[node_id].discard(pid)
            if claim.outstanding[node_id]:
                claim.outstanding[node_id] -= 1
                self._promised[node_id] -= 1
            self._schedule(REFILL_SECONDS, _BESIDE_A_JOB)

    def rested(self) -> None:
        """A gang has ended: there is time to make new ones, unless another attempt follows at once."""
        with self._changed:
            self._schedule(_IDLE_REFILL_SECONDS, _BETWEEN_JOBS)

    def make_way(self) -> None:
        """Let go of the processes that are being held, within milliseconds. They are idle when this returns.

        Whoever else does so meanwhile waits for that, too: Ray would start another process beside those.
        """
        with self._releasing:
            with self._changed:
                held, self._holding = self._holding, None
            if held is not None:
                held.release()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.make_way()
        if self._thread is not None:
            self._thread.join(_RELEASE_SECONDS)

    def _short_of(self, need: Mapping[str, int]) -> bool:
        return any(len(self._idle[node]) - self._promised[node] < count for node, count in need.items())

    def _schedule(self, delay: float, policy: WarmUpPolicy) -> None:
        if self._target == 0 or self._closed:
            return
        self._due = time.monotonic() + delay
        self._policy = policy
        self._filling = self._filling or delay == 0.0
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="warm-pool", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _serve(self) -> None:
        failing = False
        while (policy := self._next_round()) is not None:
            try:
                self._round(policy)
                failing = False
            except (ray.exceptions.RayError, RuntimeError):
                pass  # the cluster may be going away; what is missed is made in the next round
            except Exception:  # without this thread every later job would start cold
                if not failing:
                    _logger.exception("warm workers could not be made; tried again every %g s", LOOK_SECONDS)
                failing = True
            with self._changed:
                self._filling = False
                self._changed.notify_all()

    def _next_round(self) -> WarmUpPolicy | None:
        """Wait until a round is due; None once the pool is closed.

        One that is under way before a gang claims processes goes on; no other starts while the claim lasts.
        """
        with self._changed:
            if self._due is None:
                self._due, self._policy = time.monotonic() + LOOK_SECONDS, _BESIDE_A_JOB
            while not self._closed:
                wait = self._due - time.monotonic()
                if wait <= 0 and (not self._claims or self._filling):
                    self._due, self._filling = None, not self._policy.gentle
                    return self._policy
                self._changed.wait(None if wait <= 0 else wait)
            return None

    def _round(self, policy: WarmUpPolicy) -> None:
        nodes: list[Mapping[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        self._forget_all_but({node["NodeID"] for node in nodes if node["Alive"]})
        short = [node for node in nodes if self._is_short(node)]
        if not short:
            return
        placements = [(node["NodeID"], _on(node)) for node in short for _ in range(self._target_of(node))]
        mine = _Round([options for _, options in placements], policy)
        with self._changed:
            self._holding = mine
        try:
            self._collect(mine, dict(zip(mine.tasks, (node for node, _ in placements), strict=True)))
        finally:
            self.make_way()

    def _forget_all_but(self, alive: set[str]) -> None:
        with self._changed:
            for node in self._idle.keys() - alive:
                del self._idle[node]

    def _is_short(self, node: Mapping[str, Any]) -> bool:
        return bool(node["Alive"]) and len(self._idle[node["NodeID"]]) < self._target_of(node)

    def _target_of(self, node: Mapping[str, Any]) -> int:
        """None on a node that offers no CPU: no worker is ever placed there."""
        cpus = node["Resources"].get("CPU", 0.0)
        if self._target is None:
            return min(MOST, int(cpus))
        return self._target if cpus else 0

    def _collect(self, mine: _Round, nodes: Mapping[Any, str]) -> None:
        """Wait until every task of the round holds its process, or ``make_way`` has taken them over.

        A pool that was closed before it held any has nobody to take them over, and Ray ends next.
        """
        deadline = time.monotonic() + _ROUND_SECONDS
        while not (mine.complete or self._closed) and time.monotonic() < deadline and self._holding is mine:
            ready = mine.wait(0.1)
            with self._changed:
                if self._holding is not mine:
                    return
                for task, pid in mine.loaded(ready):
                    self._idle[nodes[task]].add(pid)
                self._changed.notify_all()


class Claim:
    """What a gang was promised while its workers start; nothing where there were too few for all of them."""

    def __init__(self, pool: WarmPool, promised: Mapping[str, int]) -> None:
        self._pool = pool
        self.enough = bool(promised)
        self.outstanding = Counter(promised)

    def taken(self, node_id: str, pid: int) -> None:
        """One of its workers has that process."""
        self._pool.take(self, node_id, pid)


class _Round:
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

    def loaded(self, ready: Iterable[Any]) -> Iterator[tuple[Any, int]]:
        """The tasks among ``ready`` that have imported everything, each with its process's id."""
        for task in ready:
            self._waiting.remove(task)
            with suppress(StopIteration, ray.exceptions.RayError):
                yield task, ray.get(next(task))

    def release(self) -> None:
        """Let the tasks end, and wait for those that hold a process with everything imported: it is idle then."""
        self._gate.open()
        deadline = time.monotonic() + _RELEASE_SECONDS
        for task in self.tasks:
            if task not in self._waiting:
                with suppress(ray.exceptions.RayError, StopIteration):
                    while ray.wait([task], timeout=max(0.0, deadline - time.monotonic()))[0]:
                        ray.get(next(task))


def preload(placements: Iterable[Mapping[str, Any]], given_up: Callable[[], bool]) -> None:
    """Start a process for each placement (options of a Ray task) where none is idle, all at the same time.

    Returns when all have imported what a worker needs and are idle, once nobody wants them, or after a minute and a
    half.
    """
    crowd = _Round(placements, _WAITED_FOR)
    deadline = time.monotonic() + _PRELOAD_SECONDS
    while not crowd.complete and not given_up() and time.monotonic() < deadline:
        list(crowd.loaded(crowd.wait(1.0)))
    crowd.release()


def _on(node: Mapping[str, Any]) -> dict[str, Any]:
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)}
