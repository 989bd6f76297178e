"""The ledger with 10,000 jobs in its queue: how long one decision, one explanation, one sign of life takes."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median, quantiles

import psutil
from measure import Promise, Section, interleave

sys.path.insert(0, str(Path(__file__).parents[1]))

from epochal.ledger.capacity import Node
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import JobState, Reason
from epochal.ledger.values import Job, Lease
from postgres import Postgres, binaries

QUEUED, ENDED, TIMES = 10_000, 2_000, 30
NODES = (10, 100)
DIFF = "x" * 256 * 1024
OVER = tuple(state for state in JobState if state.is_terminal)


def measure(rounds: int, quick: bool) -> Section:
    queued, ended = (QUEUED // 10, ENDED // 10) if quick else (QUEUED, ENDED)
    raw: dict[str, list[float]] = {}
    for database in ("sqlite", *(["postgresql"] if binaries() else [])):
        with _ledger(database) as ledger:
            measure_once = partial(_times, ledger, *_fill(ledger, queued, ended), database)
            found = interleave(min(rounds, 3), {database: measure_once})
        raw |= {f"{database}: {name}": values for name, values in found.items()}
    decisions = [name for name in raw if "in vain" in name or "given" in name]
    return Section(
        "scale",
        "seconds",
        raw,
        [Promise(name, name, limit=0.05) for name in decisions if name.endswith("p95")]
        + [Promise(name, name) for name in raw if name not in decisions],
        [f"{queued} jobs queued in 40 kinds, {ended} ended; one process, no server; the diff of a job is 256 KiB"],
    )


@contextmanager
def _ledger(database: str) -> Iterator[Ledger]:
    if database == "sqlite":
        with tempfile.TemporaryDirectory() as folder, Ledger.open(f"sqlite:///{folder}/ledger.db") as ledger:
            yield ledger
        return
    programs = binaries()
    assert programs is not None
    with Postgres(programs) as cluster, Ledger.open(cluster.new_url()) as ledger:
        yield ledger


def _fill(ledger: Ledger, queued: int, ended: int) -> tuple[Job, Lease]:
    for number in range(ended):
        ledger.request_stop(_submit(ledger, number).id)
    held = ledger.submit({"version": 1}, name="held", origin={"git_diff": DIFF})
    for number in range(queued):
        job = _submit(ledger, number)
    lease = ledger.lease("embedded", 3600, held.id)
    assert lease is not None
    ledger.running(lease, 1)
    return job, lease


def _submit(ledger: Ledger, number: int) -> Job:
    resources = {"workers": 1 + number % 8, "cpus_per_worker": 1 + number % 2, "gpus_per_worker": number % 5 == 0}
    spec = {"version": 1, "resources": resources, "data": {"name": "digits", "params": {"about": "y" * 2000}}}
    return ledger.submit(spec, name="waits", priority=50, submitted_by=f"user-{number % 10}")


def _times(ledger: Ledger, last: Job, lease: Lease, database: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for count in NODES:
        busy = [_node(number, free=0.0) for number in range(count)]
        found |= _timed(f"heartbeat, {count} nodes", lambda busy=busy: ledger.heartbeat("a", "1", busy, [], {}))
        found |= _timed(f"asked in vain, {count} nodes", lambda: ledger.lease("a/1", 60))
        found |= _timed(f"why the last, {count} nodes", lambda: ledger.why(last.id), times=5)
        found |= _given(ledger, count)
    found |= _timed("recent 20", lambda: ledger.jobs(OVER, 20))
    found |= _timed("queue, first 200", lambda: ledger.queue(200), times=5)
    before = psutil.Process().io_counters().write_chars
    found |= _timed("renew", lambda: ledger.renew(lease, 3600, {"step": 1}))
    if database == "sqlite":  # else another process writes
        found["renew, KiB written"] = (psutil.Process().io_counters().write_chars - before) / TIMES / 1024
    return found


def _given(ledger: Ledger, count: int) -> dict[str, float]:
    """A lease, and back to the queue: only the lease is timed."""
    ledger.heartbeat("a", "1", [_node(number, free=16.0) for number in range(count)], [], {})
    times = []
    for _ in range(TIMES):
        began = time.perf_counter()
        lease = ledger.lease("a/1", 60)
        times.append(time.perf_counter() - began)
        assert lease is not None
        ledger.retry(lease, Reason.INTERRUPTED)
    return _summed(f"given, {count} nodes", times)


def _node(number: int, free: float) -> Node:
    return Node(f"n{number}", f"host-{number}", {"CPU": 16.0, "GPU": 2.0}, {"CPU": free, "GPU": free and 2.0})


def _timed(name: str, call: Callable[[], object], times: int = TIMES) -> dict[str, float]:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return _summed(name, taken)


def _summed(name: str, taken: list[float]) -> dict[str, float]:
    return {f"{name}, p50": median(taken), f"{name}, p95": quantiles(taken, n=20, method="inclusive")[-1]}
