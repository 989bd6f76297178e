"""What workers used the time for which they held their room, over all jobs of an agent: goodput, and where it went."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from epochal.training.control import Phase

USES: Mapping[Phase, str] = {
    "setup": "start",
    "train": "train",
    "validate": "validate",
    "checkpoint": "checkpoint",
    "export": "finish",
}
"""What a worker's phase is counted as; of a step's time in `train`, what it waited for data is counted as `data`."""

START, DATA = "start", "data"


@dataclass
class _Room:
    workers: int
    gpus: float
    since: float
    shares: Mapping[str, float]


class WorkerTime:
    """Counts seconds, times workers and times their GPUs. Threads may share one.

    Each job is asked once a second what it does: the time until the next answer is counted as that.

    >>> clock = iter([0.0, 5.0, 9.0, 10.0])
    >>> time = WorkerTime(lambda: next(clock))
    >>> time.has_room("job-1", workers=2, gpus=0.0)
    >>> time.does("job-1", "train", waits_for_data=0.25)
    >>> time.gives_back("job-1")
    >>> time.told()["worker_seconds"]["train"], time.told()["worker_seconds"]["data"]
    (6.0, 2.0)
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._rooms: dict[str, _Room] = {}
        self._workers: dict[str, float] = defaultdict(float)
        self._gpus: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def has_room(self, job_id: str, workers: int, gpus: float) -> None:
        """From now on, and until told otherwise to start. ``gpus``: of all workers together."""
        with self._lock:
            before = self._counted(job_id)
            self._rooms[job_id] = _Room(workers, gpus, self._clock(), before.shares if before else {START: 1.0})

    def does(self, job_id: str, use: str, waits_for_data: float = 0.0) -> None:
        """From now on. ``waits_for_data``: the share of it that is counted as that. A job without room does nothing."""
        with self._lock:
            if room := self._counted(job_id):
                room.shares = {use: 1.0 - waits_for_data, DATA: waits_for_data} if waits_for_data else {use: 1.0}

    def gives_back(self, job_id: str) -> None:
        with self._lock:
            self._counted(job_id)
            self._rooms.pop(job_id, None)

    def told(self) -> dict[str, dict[str, float]]:
        """For a heartbeat: seconds by use since this agent began."""
        with self._lock:
            for job_id in self._rooms:
                self._counted(job_id)
            uses = dict.fromkeys((*USES.values(), DATA), 0.0)
            return {
                name: {use: round(seconds, 1) for use, seconds in {**uses, **counted}.items()}
                for name, counted in (("worker_seconds", self._workers), ("gpu_seconds", self._gpus))
            }

    def _counted(self, job_id: str) -> _Room | None:
        room = self._rooms.get(job_id)
        if room is not None:
            now = self._clock()
            for use, share in room.shares.items():
                seconds = (now - room.since) * share
                self._workers[use] += seconds * room.workers
                self._gpus[use] += seconds * room.gpus
            room.since = now
        return room
