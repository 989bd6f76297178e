"""``python killed_sync.py URI FOLDER``: sync processes killed one after the other, and a last one that ends by itself.

The process that imports MLflow forks one child a sync. Each is killed with SIGKILL right after the answer to a request
that changed something in MLflow, before it can write down that it did. Prints the request that each was killed after.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from epochal.tracking.connection import connect, is_sqlite, quiet_mlflow, sqlite_path
from epochal.tracking.syncer import sync

CHANGES = (
    "create_experiment", "create_run", "log_batch", "log_batch:2", "log_inputs", "log_batch", "log_batch:3",
    "set_terminated", "log_artifact", "log_artifact:2", "create_logged_model", "log_model_artifact",
    "log_model_artifact:3", "finalize_logged_model", "log_outputs",
)  # fmt: skip
"""A child dies after the first of these requests, or after the second or third where a number says so."""


class KilledAfter:
    """A client whose process does not survive a request."""

    def __init__(self, client: Any, change: str) -> None:
        self._client = client
        self._name, _, count = change.partition(":")
        self._left = int(count or 1)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def request(*arguments: Any, **named: Any) -> Any:
            answer = method(*arguments, **named)
            self._left -= name == self._name
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return request


def warm_up(uri: str) -> None:
    """Load all of MLflow before the forks, on a copy: a SQLite connection must not be shared with children."""
    if is_sqlite(uri):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copyfile(sqlite_path(uri), Path(folder) / "copy.db")
            connect(f"sqlite:///{folder}/copy.db").search_experiments()


def main(uri: str, folder: Path) -> int:
    quiet_mlflow()
    warm_up(uri)
    for change in [*CHANGES, "nothing"]:
        child = os.fork()
        if child == 0:
            synced = sync(uri, folder, KilledAfter(connect(uri), change))  # type: ignore[arg-type]
            os._exit(1 if synced.pending else 0)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            print(change)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
