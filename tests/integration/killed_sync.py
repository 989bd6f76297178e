"""``python killed_sync.py URI FOLDER``: sync processes that are killed, one after the other, until one comes to its end.

The process that imports MLflow forks one child a sync. Each is killed with SIGKILL right after the answer to a request
that changed something in MLflow, before it can write down that it did: every other child after its first such request,
and those between after their second, so that it goes on. Prints the request that each was killed after.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from epochal.tracking.connection import connect, quiet_mlflow
from epochal.tracking.sync import sync

READING = ("get_", "search_", "list_")


class KilledAfter:
    """A client whose process does not survive its n-th change."""

    def __init__(self, client: Any, changes: int) -> None:
        self._client = client
        self._left = changes

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def request(*arguments: Any, **named: Any) -> Any:
            answer = method(*arguments, **named)
            self._left -= not name.startswith(READING)
            if self._left == 0:
                print(name, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return request


def main(uri: str, folder: Path) -> None:
    quiet_mlflow()
    for number in range(200):
        child = os.fork()
        if child == 0:
            synced = sync(uri, folder, KilledAfter(connect(uri), 1 + number % 2))  # type: ignore[arg-type]
            os._exit(1 if synced.pending else 0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            sys.exit(os.WEXITSTATUS(status))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
