"""A ledger in this process as an agent's source of jobs: for a command in the foreground, and for tests."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from epochal.errors import NotFoundError
from epochal.ledger.capacity import Node
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import JobState, Reason
from epochal.ledger.values import AgentInfo, Attempt, Job, Lease

_LOOK_SECONDS = 0.05


class LedgerSource:
    """``JobSource`` over a ``Ledger``. The code is on this machine already, and logs stay where they were written."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def heartbeat(
        self,
        name: str,
        incarnation: str,
        nodes: Sequence[Node],
        held: Sequence[tuple[str, int]] = (),
        detail: Mapping[str, Any] | None = None,
    ) -> AgentInfo:
        return self._ledger.heartbeat(name, incarnation, nodes, held, detail or {})

    def lease(self, agent: str, ttl: float, job_id: str | None = None, wait: float = 0.0) -> Lease | None:
        deadline = time.monotonic() + wait
        while (lease := self._ledger.lease(agent, ttl, job_id)) is None and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        return lease

    def renew(self, lease: Lease, ttl: float, progress: Mapping[str, Any] | None = None) -> JobState:
        return self._ledger.renew(lease, ttl, progress)

    def running(self, lease: Lease, world_size: int, detail: Mapping[str, Any] | None = None) -> Job:
        return self._ledger.running(lease, world_size, detail)

    def set_run(self, lease: Lease, run_id: str, tracking_uri: str) -> Job:
        return self._ledger.set_run(lease, run_id, tracking_uri)

    def note(self, lease: Lease, kind: str, message: str = "", detail: Mapping[str, Any] | None = None) -> Job:
        return self._ledger.note(lease, kind, message, detail)

    def finish(self, lease: Lease, state: JobState, reason: Reason, message: str = "") -> Job:
        return self._ledger.finish(lease, state, reason, message)

    def retry(self, lease: Lease, reason: Reason, message: str = "") -> Job:
        return self._ledger.retry(lease, reason, message)

    def pause(self, lease: Lease, reason: Reason = Reason.STOPPED_BY_USER, message: str = "") -> Job:
        return self._ledger.pause(lease, reason, message)

    def stopped(self, lease: Lease, message: str = "") -> Job:
        return self._ledger.stopped(lease, message)

    def job(self, ref: str) -> Job:
        return self._ledger.job(ref)

    def attempts(self, ref: str) -> list[Attempt]:
        return self._ledger.attempts(ref)

    def request_pause(self, ref: str, message: str = "") -> Job:
        return self._ledger.request_pause(ref, message)

    def fetch_code(self, digest: str, into: Path) -> Path:
        """
        Raises:
            NotFoundError: it is not there.
        """
        package = into / f"{digest}.zip"
        if not package.exists():
            raise NotFoundError("code package", digest)
        return package

    def append_log(self, lease: Lease, rank: int, offset: int, data: bytes) -> int:
        return offset + len(data)
