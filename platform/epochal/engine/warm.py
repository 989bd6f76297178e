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
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from ray.core.generated import gcs_pb2
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from epochal.clocks import ADVICE, ahead, beside, is_off
from epochal.engine.ray_variables import KEEPING, SHARED
from epochal.engine.warm_round import WAITED_FOR, Round, WarmUpPolicy

MOST = 4
"""Warm workers of a node for which no other number was asked: as many as it has CPUs, up to this number."""

LOOK_SECONDS = 5.0
"""How often the nodes are looked at anew: some join later, some go."""

REFILL_SECONDS = 5.0
"""How long after workers were taken new ones are made: the first steps of a job are the ones people wait for."""

_IDLE_REFILL_SECONDS = 0.3
_ROUND_SECONDS = 120.0
_CLAIM_SECONDS = 30.0
_RELEASE_SECONDS = 2.0

_logger = logging.getLogger(__name__)

_BESIDE_A_JOB = WarmUpPolicy(gentle=True)
_BETWEEN_JOBS = WarmUpPolicy()

_WAS_IDLE = "it was idle"
"""In what Ray says about the end of a worker that it had no use for."""


def not_kept(host: str) -> dict[str, str]:
    """What to read about a node whose raylet ends idle workers, and what to do."""
    variables = " ".join(f"{name}={SHARED[name]}" for name in KEEPING)
    return {
        "found": f"node {host} does not keep idle workers: jobs start there within seconds, not at once",
        "advice": f"set {variables} where its Ray is started (the pods of `epochal cluster render` have them)",
    }


def clock_is_off(host: str, seconds: float) -> dict[str, str]:
    return {"found": f"the clock of node {host} is {beside(seconds, 'the agent')}", "advice": ADVICE}


class WarmPool:
    """Keeps processes warm on every node, those that join later too, in a thread of its own."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._hosts: Mapping[str, str] = {}
        self._ahead: dict[str, float] = {}
        """By node, how far its clock is ahead of this process's, by its newest warm process."""
        self._target: int | None = 0
        self._idle: defaultdict[str, dict[int, str]] = defaultdict(dict)
        """By node and process id, Ray's names for the workers."""
        self._wasteful: dict[str, str] = {}
        self._promised: Counter[str] = Counter()
        self._holding: Round | None = None
        self._due: float | None = None
        self._policy = WAITED_FOR
        self._filling = False
        self._claims = 0
        self._closed = False
        self._changed = threading.Condition()
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
            self._schedule(0.0, WAITED_FOR)

    def idle(self) -> Mapping[str, int]:
        """How many warm processes each node has, as far as is known here."""
        with self._changed:
            return {node: len(pids) for node, pids in self._idle.items() if pids}

    def wasteful(self) -> Mapping[str, str]:
        """The nodes, with their hosts, whose raylets have ended idle workers: jobs start there in seconds."""
        with self._changed:
            return dict(self._wasteful)

    def clocks(self) -> Mapping[str, float]:
        """The hosts whose clocks are not this machine's, and by how many seconds, or more, they are ahead of it."""
        with self._changed:
            return {self._hosts[node]: seconds for node, seconds in self._ahead.items() if is_off(seconds)}

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
        try:
            self.make_way()
            yield claim
        finally:
            with self._changed:
                self._claims -= 1
                self._promised.subtract(claim.outstanding)
                self._changed.notify_all()

    def take(self, claim: Claim, node_id: str, pid: int) -> None:
        """The gang of that ``claim`` has that process now."""
        with self._changed:
            self._idle[node_id].pop(pid, None)
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
        # At once, not when the thread comes to it: a claim made meanwhile waits for these processes.
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
                # A claim may be waiting for the very round that is due.
                if wait <= 0 and (not self._claims or self._filling):
                    self._due, self._filling = None, not self._policy.gentle
                    return self._policy
                self._changed.wait(None if wait <= 0 else wait)
            return None

    def _round(self, policy: WarmUpPolicy) -> None:
        nodes: list[Mapping[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        alive = {node["NodeID"]: node["NodeManagerAddress"] for node in nodes if node["Alive"]}
        self._forget_all_but(alive)
        self._forget_those_that_ended(alive)
        short = [node for node in nodes if self._is_short(node, policy)]
        if not short:
            return
        placements = [(node["NodeID"], _on(node)) for node in short for _ in range(self._target_of(node))]
        mine = Round([options for _, options in placements], policy)
        with self._changed:
            self._holding = mine
        try:
            self._collect(mine, dict(zip(mine.tasks, (node for node, _ in placements), strict=True)))
        finally:
            self.make_way()

    def _forget_all_but(self, hosts: Mapping[str, str]) -> None:
        with self._changed:
            self._hosts = hosts
            for known in (self._idle, self._wasteful, self._ahead):
                for node in known.keys() - hosts.keys():
                    del known[node]

    def _forget_those_that_ended(self, hosts: Mapping[str, str]) -> None:
        """Some crashed, or the system killed them; a raylet that others started may end those that are idle."""
        with self._changed:
            known = [(node, pid, worker) for node, pids in self._idle.items() for pid, worker in pids.items()]
        for node, pid, worker in known:
            if (why := _why_ended(worker)) is None:
                continue
            with self._changed:
                was_idle = self._idle[node].pop(pid, None) is not None
                told = node in self._wasteful
                if was_idle and _WAS_IDLE in why:
                    self._wasteful[node] = hosts[node]
            if was_idle and not told and node in self._wasteful:
                _logger.warning("%(found)s; %(advice)s", not_kept(hosts[node]))

    def _is_short(self, node: Mapping[str, Any], policy: WarmUpPolicy) -> bool:
        """Beside a job a wasteful node is left alone: Ray keeps as many idle workers as CPUs are free, by default, and
        would end within a second what took seconds of the job's cores."""
        name = node["NodeID"]
        if not node["Alive"] or (policy.gentle and name in self._wasteful):
            return False
        return len(self._idle[name]) < self._target_of(node)

    def _target_of(self, node: Mapping[str, Any]) -> int:
        """None on a node that offers no CPU: no worker is ever placed there."""
        cpus = node["Resources"].get("CPU", 0.0)
        if self._target is None:
            return min(MOST, int(cpus))
        return self._target if cpus else 0

    def _collect(self, mine: Round, nodes: Mapping[Any, str]) -> None:
        """Wait until every task of the round holds its process, or ``make_way`` has taken them over.

        A pool that was closed before it held any has nobody to take them over, and Ray ends next.
        """
        deadline, began = time.monotonic() + _ROUND_SECONDS, self._clock()
        while not (mine.complete or self._closed) and time.monotonic() < deadline and self._holding is mine:
            ready = mine.wait(0.1)
            with self._changed:
                if self._holding is not mine:
                    return
                for task, warmed in mine.loaded(ready):
                    self._idle[nodes[task]][warmed.pid] = warmed.worker_id
                    self._ahead[nodes[task]] = -ahead(warmed.now, began, self._clock())
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


def _why_ended(worker_id: str) -> str | None:
    """What Ray says about the end of a worker; None while it lives, or Ray knows nothing of it."""
    accessor: Any = ray._private.state.state._connect_and_get_accessor()
    found = accessor.get_worker_info(ray.WorkerID.from_hex(worker_id))
    if found is None:
        return None
    worker: Any = gcs_pb2.WorkerTableData.FromString(found)  # type: ignore[attr-defined]
    return None if worker.is_alive else str(worker.exit_detail)


def _on(node: Mapping[str, Any]) -> dict[str, Any]:
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)}
