"""What the supervisor says of its services, in a file that others read. Light: every thin command may look."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from epochal.errors import ConflictError
from epochal.files import is_locked, locked
from epochal.urls import without_password

MARK = "EPOCHAL_SERVICES"
"""The environment variable that every process of the services inherits: the folder of their state."""


class ServiceState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    FAILING = "failing"
    """It runs, and its health check says no."""
    WAITING = "waiting"
    """It ended by itself and is started again in a moment."""
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True)
class ServiceStatus:
    """One service. ``created`` is when its process began, in seconds of the epoch; ``since`` when its state did.

    ``last_exit`` is the exit code of the process before this one, the negative signal number where one ended it.
    """

    name: str
    state: ServiceState
    url: str = ""
    pid: int | None = None
    created: float | None = None
    since: float = 0.0
    restarts: int = 0
    last_exit: int | None = None
    ready_seconds: float | None = None
    """From its last start to its first healthy answer."""
    log: str = ""
    needs: tuple[str, ...] = ()
    """Services that it cannot be ready without."""


@dataclass(frozen=True)
class Services:
    """All services of one `epochal up`. ``running`` is whether there is a supervisor that looks after them."""

    running: bool
    supervisor: int | None = None
    started_at: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)
    services: tuple[ServiceStatus, ...] = ()

    def __getitem__(self, name: str) -> ServiceStatus:
        return next(service for service in self.services if service.name == name)

    def __contains__(self, name: str) -> bool:
        return any(service.name == name for service in self.services)

    @property
    def ready(self) -> bool:
        states = [service.state for service in self.services]
        return self.running and states != [] and set(states) == {ServiceState.READY}

    def url(self, name: str) -> str:
        """Where a service listens; empty where there is none of that name."""
        return self[name].url if name in self else ""

    def tracked_at(self, tracking_uri: str) -> str:
        """Where the agent of these services sends runs: ``tracking_uri``, with its password, unless they were started
        with another one."""
        served = str(self.options.get("mlflow_url", "")) if self.running else ""
        return tracking_uri if served in ("", without_password(tracking_uri)) else served

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    @staticmethod
    def from_json(text: str) -> Services:
        """The inverse of ``to_json``; keys that this version does not know are left out.

        Raises:
            ValueError: it is not what ``to_json`` wrote.
        """
        return TypeAdapter(Services).validate_json(text)


def state_path(folder: Path) -> Path:
    return folder / "state.json"


def supervisor_lock(folder: Path) -> Path:
    """Held by the supervisor for as long as it lives; its pid is in it.

    Better than a pid and a creation time: the kernel lets go of it however the process ends, a reboot and a reused
    pid cannot deceive anyone, and no clock is compared.
    """
    return folder / "supervisor.lock"


def supervisor_pid(folder: Path) -> int | None:
    """What the lock says, whoever holds it now; None where nobody has held it long enough to write it."""
    with suppress(OSError, ValueError):
        return int(supervisor_lock(folder).read_text())
    return None


def read_services(folder: Path) -> Services:
    """What the supervisor last wrote, and whether there is one.

    One that is just starting or ending has written nothing: then no service is known.
    """
    try:
        found = Services.from_json(state_path(folder).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        found = Services(False)
    running = is_locked(supervisor_lock(folder))
    if running and found.supervisor != supervisor_pid(folder):
        return Services(True)  # what is written is of one that died
    return replace(found, running=running)


@contextmanager
def hold(path: Path, seconds: float, busy: str) -> Iterator[None]:
    """Hold the lock within the ``with`` block, waiting up to ``seconds`` for it; this pid is written into it.

    Raises:
        ConflictError: someone else has it; ``busy`` says what that means.
    """
    with locked(path, seconds, 0o600) as mine:
        if not mine:
            raise ConflictError(busy, "wait for it, or look with `epochal doctor`")
        # In one write, and of one length: whoever reads meanwhile sees the pid of before, or this one. The lock is on
        # this very file, so that no other can be put in its place.
        with path.open("r+b", buffering=0) as file:
            file.write(f"{os.getpid():<20}\n".encode())
        yield
