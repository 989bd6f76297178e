"""One supervised service: its process, how it is doing, and when it is started again."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from epochal.backoff import pause_after
from epochal.local import launch
from epochal.local.health import is_healthy
from epochal.local.service_plan import ServicePlan
from epochal.local.service_state import MARK, ServiceState, ServiceStatus
from epochal.redaction import said

START_SECONDS = 120.0
"""A service that is not healthy by then is started again."""

HUNG_SECONDS = 60.0
"""One that was healthy, and has not answered for this long, is killed: it runs, and does nothing."""

STABLE_SECONDS = 60.0
"""One that ran for this long is started again at once when it ends; sooner, ever later."""

LONGEST_PAUSE_SECONDS = 30.0
PROBE_STARTING_SECONDS = 0.1
PROBE_SECONDS = 3.0
_LOG_LIMIT = 16 * 2**20

_logger = logging.getLogger(__name__)


class Service:
    """Starts, watches and ends one process group. Times are of the monotonic clock; not thread-safe.

    It must be used in the thread that lives as long as the process: the kernel ends a service with that thread.
    """

    def __init__(self, plan: ServicePlan, folder: Path) -> None:
        self.plan = plan
        self._log = folder / f"{plan.name}.log"
        # The mark is inherited by all that it starts: an orphan is known by it.
        self._environment = {**plan.environment, MARK: str(folder)}
        self._quick_ends = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._began = self._answered = self._next_probe = self._next_start = 0.0
        self._ready_before = False
        self.status = ServiceStatus(
            plan.name, ServiceState.WAITING, plan.url, since=time.time(), log=str(self._log), needs=plan.needs
        )

    @property
    def alive(self) -> bool:
        return self._process is not None

    @property
    def ready(self) -> bool:
        return self.status.state is ServiceState.READY

    def watch(self, needed: bool) -> None:
        """Look at it once: start it, find that it has ended, or ask it how it is.

        ``needed``: whether the services that its probe needs are ready; where they are not, it is not asked.
        """
        now = time.monotonic()
        if self._process is None:
            if now >= self._next_start:
                self._start_again(now) if self.status.restarts else self._start(now)
        elif (code := self._process.poll()) is not None:
            self._ended(code, now)
        elif not needed:
            self._answered = now  # this time says nothing about it
        elif now >= self._next_probe:
            self._probe(now)

    def ask_to_end(self) -> None:
        """SIGTERM to the service itself, which is to end what it has started."""
        self._become(ServiceState.STOPPING)
        if self._process is not None:
            self._process.terminate()

    def has_ended(self) -> bool:
        """Whether it is gone, after ``ask_to_end``."""
        if self._process is not None and (code := self._process.poll()) is not None:
            self._gone(code)
        if self._process is None:
            self._become(ServiceState.STOPPED)
        return self._process is None

    def kill(self) -> None:
        """SIGKILL to the whole group."""
        if self._process is not None:
            self._signal_group(self._process.pid)
            self._gone(self._process.wait())

    def _start(self, now: float) -> None:
        if self._log.exists() and self._log.stat().st_size > _LOG_LIMIT:  # nobody writes to it between two starts
            self._log.replace(self._log.with_suffix(".log.1"))
        # Isolated and without site-packages, it becomes the service within 20 ms.
        command = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), *self.plan.command]
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._began = self._answered = self._next_probe = now
        self._ready_before = False
        self._become(ServiceState.STARTING, pid=self._process.pid, created=_created(self._process.pid))

    def _start_again(self, now: float) -> None:
        """Where the system has no process left for it, or no room for its log, that is tried again later too: the other
        services have theirs. The first start of all fails, and `epochal up` says why."""
        try:
            self._start(now)
        except OSError as error:
            _logger.warning("%s cannot be started: %s", self.plan.name, said(error))
            self._began = now  # it ran for no time at all
            self._again(now)

    def _ended(self, code: int, now: float) -> None:
        """It went by itself, or somebody killed it."""
        self._gone(code)
        self._again(now)

    def _again(self, now: float) -> None:
        self._quick_ends = 1 if now - self._began >= STABLE_SECONDS else self._quick_ends + 1
        self._next_start = now + pause_after(self._quick_ends, 0.2, LONGEST_PAUSE_SECONDS)
        self._become(ServiceState.WAITING, restarts=self.status.restarts + 1)

    def _gone(self, code: int) -> None:
        if self._process is not None:
            # What it has left of its group would keep its port.
            self._signal_group(self._process.pid)
            self._process = None
        self._become(self.status.state, pid=None, created=None, last_exit=code)

    def _probe(self, now: float) -> None:
        if is_healthy(self.plan.probe, self.status.pid or 0):
            self._healthy(time.monotonic())
            return
        limit = HUNG_SECONDS if self._ready_before else START_SECONDS
        if now - self._answered > limit:
            # Only killed here: the next look finds that it has ended, and starts it again like any that died.
            self._signal_group(self.status.pid or 0)
            return
        self._next_probe = time.monotonic() + PROBE_STARTING_SECONDS
        if self._ready_before:
            self._become(ServiceState.FAILING)

    def _healthy(self, now: float) -> None:
        self._answered, self._next_probe = now, now + PROBE_SECONDS
        if not self._ready_before:
            self._ready_before = True
            self._become(ServiceState.READY, ready_seconds=round(now - self._began, 3))
        self._become(ServiceState.READY)

    def _become(self, state: ServiceState, **changes: Any) -> None:
        since = self.status.since if state is self.status.state else time.time()
        self.status = replace(self.status, state=state, since=since, **changes)

    @staticmethod
    def _signal_group(pid: int) -> None:
        with suppress(ProcessLookupError, PermissionError):  # macOS refuses where only zombies are left
            os.killpg(pid, signal.SIGKILL)


def _created(pid: int) -> float | None:
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None
