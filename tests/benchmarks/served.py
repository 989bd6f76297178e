"""Jobs one after the other through `epochal up` and `submit`, as users submit them: ``python served.py FILE JOBS``.

Prints when each was submitted, leased and running (Unix seconds), or, imported, starts itself as a contender.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from contender import BIN, Contender
from epochal_job import write_spec
from steps import wait_for

from epochal.urls import free_port

PAUSE_SECONDS = 5.0
"""Between the end of a job and the next submission: nobody submits in the moment in which a job ends."""


def start(folder: Path, env: Mapping[str, str], jobs: int) -> Contender:
    command: list[str | Path] = [sys.executable, Path(__file__), write_spec(folder), str(jobs)]
    return Contender(command, folder, env)


def moment(contender: Contender, what: str, index: int) -> float:
    """When the ``index``-th job was ``what`` (Unix seconds), such as ``submitted``, once the contender has said so."""

    def find() -> float | None:
        moments = re.findall(rf"^{what} (\S+)$", contender.log.read_text(errors="replace"), re.MULTILINE)
        return float(moments[index]) if len(moments) > index else None

    return wait_for(f"job {index} {what}", find, contender.alive)


def main(spec: Path, jobs: int) -> None:
    from epochal.client.client import Client
    from epochal.ledger.states import JobState

    subprocess.run(
        [BIN / "epochal", "up", "--port", str(free_port()), "--mlflow-port", str(free_port())], check=True
    )  # fmt: skip
    try:
        with Client() as client:
            for _ in range(jobs):
                time.sleep(PAUSE_SECONDS)
                print(f"submitted {time.time()!r}", flush=True)
                job = client.wait(client.submit(spec).job.id)
                if job.state is not JobState.SUCCEEDED:
                    raise SystemExit(f"{job.id} is {job.state}: {job.reason} {job.message}")
                for event in client.events(job.id):
                    if event.kind in ("leased", "running"):
                        print(f"{event.kind} {event.at!r}", flush=True)
    finally:
        subprocess.run([BIN / "epochal", "down", "--now"], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
