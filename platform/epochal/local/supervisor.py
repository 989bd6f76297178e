"""Keeps the local services running: a small process of its own, started by `epochal up` and ended by `epochal down`.

A loop: start all at once, ask each whether it is healthy, start what has ended again, later each time, and write down
what is so. The kernel tells every service to end when this process is gone. Why neither supervisord nor circus does
this: ``docs/decisions/0007``.

It is told what to do by signals: SIGTERM ends the services one after the other, the last of the plan first, each
while those before it still run; SIGINT ends them at once.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from epochal.files import write_atomically
from epochal.local.service import Service
from epochal.local.service_plan import Plan
from epochal.local.service_state import Services, hold, state_path, supervisor_lock

TICK_SECONDS = 0.05
_LOCK_SECONDS = 2.0


class Supervisor:
    """Runs the services of ``plan`` until it is told to end; ``run`` has to be called in the main thread."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._services = [Service(service, plan.folder) for service in plan.services]
        self._by_name = {service.plan.name: service for service in self._services}
        self._started_at = time.time()
        self._published: Services | None = None
        self._ending = self._now = False

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self._asked_to_end)
        signal.signal(signal.SIGINT, self._asked_to_end)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it outlives the terminal that `epochal up` was typed in
        self._publish()
        while not self._ending:
            self._watch(self._services)
            time.sleep(TICK_SECONDS)
        self._end()

    def _asked_to_end(self, number: int, frame: object) -> None:
        self._ending = True
        self._now = self._now or number == signal.SIGINT

    def _watch(self, services: list[Service]) -> None:
        for service in services:
            if self._now:
                return
            service.watch(all(self._by_name[name].ready for name in service.plan.needs))
        self._publish()

    def _end(self) -> None:
        """One after the other, and those that remain are kept up: an agent needs the server to give its jobs back."""
        remaining = list(self._services)
        while remaining:
            service = remaining.pop()
            service.ask_to_end()
            deadline = time.monotonic() + service.plan.stop_seconds
            while not service.has_ended():
                if self._now or time.monotonic() > deadline:
                    service.kill()
                    continue
                self._watch(remaining)
                time.sleep(TICK_SECONDS)
        self._publish()

    def _publish(self) -> None:
        statuses = tuple(service.status for service in self._services)
        found = Services(True, os.getpid(), self._started_at, self._plan.options, statuses)
        if found != self._published:
            with suppress(OSError):  # a full disk ends no service: it is written once there is room
                write_atomically(state_path(self._plan.folder), found.to_json())
                self._published = found


def main(plan_file: Path) -> None:
    """Run the plan in that file.

    Raises:
        ConflictError: another supervisor has this folder.
    """
    plan = Plan.from_json(plan_file.read_text(encoding="utf-8"))
    with hold(supervisor_lock(plan.folder), _LOCK_SECONDS, f"another supervisor runs the services in {plan.folder}"):
        Supervisor(plan).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
