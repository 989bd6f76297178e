"""A ledger in this process as an agent's source of jobs: for a command in the foreground, and for tests."""

from __future__ import annotations

import time
from pathlib import Path

from epochal.errors import NotFoundError
from epochal.ledger.ledger import Ledger
from epochal.ledger.values import Held, Lease

_LOOK_SECONDS = 0.05


class LedgerSource(Ledger):
    """A ledger as a ``JobSource``. The code is on this machine already, and logs stay where they were written."""

    def lease(
        self, agent: str, ttl: float, job_id: str | None = None, secret: str = "", *, wait: float = 0.0
    ) -> Lease | None:
        """See ``Ledger.lease``; where there is none to take, one that comes within ``wait`` seconds."""
        deadline = time.monotonic() + wait
        while (lease := super().lease(agent, ttl, job_id, secret)) is None and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        return lease

    def fetch_code(self, digest: str, into: Path) -> Path:
        """
        Raises:
            NotFoundError: it is not there.
        """
        package = into / f"{digest}.zip"
        if not package.exists():
            raise NotFoundError("code package", digest)
        return package

    def append_log(self, lease: Held, rank: int, offset: int, data: bytes) -> int:
        return offset + len(data)
