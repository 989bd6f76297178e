"""Has the worker groups of the agent's cluster grow for jobs that wait, and shrink where nothing runs.

How many nodes the queue needs is the server's to say (``ledger.shortage``). Which nodes go is decided here, where it is
known what runs on each: those without work for as long as their group says, and never one with work.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from epochal.agent.job_runner import Agent
from epochal.errors import ConflictError, EpochalError
from epochal.ledger.capacity import Group, Node
from epochal.ledger.shortage import is_used

EVERY_SECONDS = 5.0

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pods:
    """A worker group, and its pods by name, with the address of each that has one.

    ``idle``: seconds for which a node beyond ``least`` stays without work. ``removed``: pods that were to go, and may
    still be there. ``waits``: what keeps those that do not run.
    """

    name: str
    shape: Mapping[str, float]
    least: int
    most: int
    asked: int
    idle: float
    pods: Mapping[str, str | None] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()
    waits: tuple[str, ...] = ()


class WorkerGroups(Protocol):
    """The worker groups of the cluster that the agent runs on. Both may raise an ``EpochalError``."""

    def read(self) -> Sequence[Pods]:
        """As they are now."""

    def scale(self, group: Pods, asked: int, remove: Sequence[str]) -> None:
        """Have ``asked`` pods in a group that is as it was read, without those of ``remove``.

        Raises:
            ConflictError: it has changed since.
        """


@dataclass(frozen=True)
class Change:
    """So many pods for a group, where these have gone."""

    group: Pods
    asked: int
    remove: tuple[str, ...] = ()


def as_told(group: Pods, nodes: Sequence[Node]) -> Group:
    """The group as the server is told of it. A node of it that is there shows its shape better than its manifest."""
    there = [node for node in nodes if node.host in group.pods.values()]
    shape = there[0].total if there else group.shape
    here = {name: shape[name] for name in ("CPU", "GPU", "memory") if name in shape}
    return Group(group.name, here, group.most, group.asked, tuple(node.id for node in there), group.waits)


class Idleness:
    """Since when which pods have no work."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def look(self, groups: Sequence[Pods], nodes: Sequence[Node], now: float) -> None:
        used = {node.host for node in nodes if is_used(node)}
        idle = [pod for group in groups for pod, host in group.pods.items() if host is None or host not in used]
        self._since = {pod: self._since.get(pod, now) for pod in idle}

    def longest(self, group: Pods, now: float) -> list[str]:
        """Those that have had none for as long as their group says, the longest first."""
        long = [pod for pod in group.pods if now - self._since.get(pod, now) >= group.idle]
        return sorted(long, key=lambda pod: self._since[pod])


def decide(group: Pods, needed: int, idle: Sequence[str]) -> Change | None:
    """What to change of a group of which ``needed`` nodes are; ``idle`` pods may go. None: nothing."""
    wanted = min(max(needed, group.least), group.most)
    if wanted > group.asked:
        return Change(group, wanted)
    spare = [pod for pod in idle if pod not in group.removed][: max(0, group.asked - wanted)]
    if spare:
        return Change(group, group.asked - len(spare), tuple(spare))
    if group.removed and not group.removed & group.pods.keys():
        return Change(group, group.asked)  # they have gone, and need not be named any more
    return None


class Scaler:
    """Looks every few seconds, in a thread of its own."""

    def __init__(self, agent: Agent, groups: WorkerGroups, clock: Callable[[], float] = time.monotonic) -> None:
        self._agent = agent
        self._groups = groups
        self._clock = clock
        self._idleness = Idleness()
        self.told: Sequence[Group] = ()
        """The groups as the source was told of them last."""
        self._closed = threading.Event()
        self._failing = ""
        self._thread = threading.Thread(target=self._run, name="worker-groups", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closed.set()

    def look(self) -> None:
        """Once.

        Raises:
            EpochalError: the API server, or the source, does not answer, or refuses.
        """
        groups, now = self._groups.read(), self._clock()
        nodes, _ = self._agent.bookings.told(self._agent.cluster.nodes())
        self.told = [as_told(group, nodes) for group in groups]
        needed = self._agent.source.provision(self._agent.name, self.told)
        self._idleness.look(groups, nodes, now)
        for group in groups:
            change = decide(group, needed.get(group.name, 0), self._idleness.longest(group, now))
            if change is not None:
                self._carry_out(change, nodes)

    def _carry_out(self, change: Change, nodes: Sequence[Node]) -> None:
        by_host = {node.host: node.id for node in nodes}
        remove, kept = [], 0
        for pod in change.remove:
            node = by_host.get(change.group.pods[pod] or "")
            # Ray takes nothing more onto it, or says that there is something on it after all.
            if node is None or self._agent.cluster.drain(node):
                remove.append(pod)
            else:
                kept += 1
        if change.remove and not remove:
            return
        asked = change.asked + kept
        if asked != change.group.asked:
            gone = f", without {', '.join(remove)}" if remove else ""
            _logger.info("group %s: %d nodes instead of %d%s", change.group.name, asked, change.group.asked, gone)
        # Those that were named and are still there are named again: KubeRay would pick others in their place.
        going = [pod for pod in change.group.pods if pod in change.group.removed and pod not in remove]
        self._groups.scale(change.group, asked, [*going, *remove])

    def attempt(self) -> None:
        """Look, and log what keeps it from that."""
        try:
            self.look()
            self._say("")
        except ConflictError as error:  # somebody has changed the group, or taken this agent's name: it is read anew
            _logger.info("the worker groups are looked at again: %s", error)
        except EpochalError as error:
            self._say(str(error))
        except Exception:
            _logger.exception("the worker groups cannot be looked after, and are looked at again")

    def _run(self) -> None:
        while not self._closed.is_set():
            self.attempt()
            self._closed.wait(EVERY_SECONDS)

    def _say(self, error: str) -> None:
        """Once when it begins to fail, and once when it works again."""
        if error and not self._failing:
            _logger.warning("the worker groups cannot be looked after, which is tried again: %s", error)
        elif self._failing and not error:
            _logger.warning("the worker groups are looked after again")
        self._failing = error
