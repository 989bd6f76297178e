"""The services of `epochal up` on this machine: start them, end them, say how they are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from epochal.engine.process import created, is_alive
from epochal.errors import ConflictError, UnreachableError
from epochal.files import is_locked, require_writable, write_atomically
from epochal.local.credentials import ensure_agent_token
from epochal.local.health import ask
from epochal.local.local_plan import Options, local_plan
from epochal.local.monitoring import require_monitoring, write_settings
from epochal.local.orphans import end_orphans
from epochal.local.port import require_free
from epochal.local.service_plan import Plan
from epochal.local.service_state import (
    Services,
    ServiceState,
    ServiceStatus,
    hold,
    read_services,
    state_path,
    supervisor_lock,
    supervisor_pid,
)
from epochal.settings import Home

READY_SECONDS = 180.0
_TRIES = 3
"""A service that has ended this often before it was ever ready will not be."""

_LEFT_SECONDS = 20.0
"""How long an agent whose supervisor was killed may take to save its jobs."""

_POLL_SECONDS = 0.05
_LOG = "supervisor.log"
_LOCK_SECONDS = READY_SECONDS + 30
_NOT_OURS = ("EPOCHAL_SERVER", "EPOCHAL_TOKEN", "EPOCHAL_CONTEXT", "EPOCHAL_RAY_ADDRESS")
"""Meant for the commands of whoever types them: one is a secret, and the agent has a Ray of its own."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Up:
    """What came of ``up``; ``seconds`` is what it took, ``already`` whether the services ran before."""

    services: Services
    already: bool
    seconds: float


def up(home: Home, options: Options, tracking_uri: str, tell: Tell) -> Up:
    """Have the services running and healthy. Where they run already, this only waits until they are healthy.

    Raises:
        ConflictError: a port is taken, or they run with other options.
        UsageError: what the options need is not installed.
        UnreachableError: one does not start; then nothing is left running.
    """
    began, folder = time.monotonic(), home.services
    require_writable(home.root)
    folder.mkdir(exist_ok=True, mode=0o700)
    with hold(folder / "up.lock", _LOCK_SECONDS, "another `epochal up` does not come to an end"):
        already = is_locked(supervisor_lock(folder))
        if already:
            if different := options.differences(read_services(folder).options):
                raise ConflictError(
                    f"the services run with other options: {', '.join(different)}",
                    "`epochal down` ends them; then `epochal up` starts them with these",
                )
            _wait_until_ready(folder, tell)
        else:
            # What a supervisor that was killed, or a machine that was switched off, left behind.
            end_orphans(folder, _LEFT_SECONDS, tell)
            state_path(folder).unlink(missing_ok=True)
            with _ended_on_failure(home):
                plan = local_plan(home, options.resolved(), tracking_uri)
                _require_ports(plan)
                if options.prometheus_port is not None:
                    require_monitoring()
                    write_settings(plan)
                ensure_agent_token(home)
                _start_supervisor(plan)
                _wait_until_ready(folder, tell)
        return Up(read_services(folder), already, time.monotonic() - began)


def down(home: Home, now: bool, tell: Tell) -> bool:
    """End the services, gracefully or at once; whether there was anything to end.

    Gracefully, the agent has its jobs save their state and hands them back to the queue, while the server still runs.
    """
    folder = home.services
    if not folder.exists():
        return False
    was_running = is_locked(supervisor_lock(folder))
    if was_running:
        _tell_of_jobs(home, now, tell)
        _end_supervisor(folder, now, tell)
    with hold(folder / "up.lock", _LOCK_SECONDS, "an `epochal up` does not come to an end"):
        if is_locked(supervisor_lock(folder)):  # somebody was quick to start them again
            return True
        left = end_orphans(folder, 0.0 if now or was_running else _LEFT_SECONDS, tell)
        state_path(folder).unlink(missing_ok=True)
        return was_running or left > 0


def describe_exit(code: int | None) -> str:
    """An exit code for a person: ``killed by SIGKILL``, ``exit code 2``."""
    if code is None:
        return "not ended yet"
    if code < 0:
        with suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def _require_ports(plan: Plan) -> None:
    ports = {
        "mlflow": ("MLflow", "mlflow_port", "--mlflow-port"),
        "server": ("the server", "port", "--port"),
        "prometheus": ("Prometheus", "prometheus_port", "--prometheus-port"),
    }
    for service in plan.services:
        if service.name in ports:
            shown, name, option = ports[service.name]
            require_free(plan.options[name], shown, option)


@contextmanager
def _ended_on_failure(home: Home) -> Iterator[None]:
    """Half of the services is of no use to anyone, and neither are they after Ctrl-C."""
    try:
        yield
    except BaseException:
        if is_locked(supervisor_lock(home.services)):
            _end_supervisor(home.services, True, lambda _: None)
        raise


def _start_supervisor(plan: Plan) -> None:
    plan_file = plan.folder / "plan.json"
    write_atomically(plan_file, plan.to_json(), 0o600)
    environ = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
    log = plan.folder / _LOG
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "epochal.local.supervisor", str(plan_file)],
            cwd=plan.folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in this terminal is not meant for it
        )
    deadline = time.monotonic() + READY_SECONDS
    while not read_services(plan.folder).services:
        if process.poll() is not None:
            raise UnreachableError(f"the supervisor ended with {describe_exit(process.returncode)}", _last_words(log))
        if time.monotonic() > deadline:
            told = f"the supervisor has told nothing of its services for {READY_SECONDS:g} s"
            raise UnreachableError(f"{told}: can it write {state_path(plan.folder)}?", _last_words(log))
        time.sleep(_POLL_SECONDS)


def _wait_until_ready(folder: Path, tell: Tell) -> None:
    deadline, at_first = time.monotonic() + READY_SECONDS, read_services(folder)
    before = {service.name: service.restarts for service in at_first.services}
    told = {service.name for service in at_first.services if service.state is ServiceState.READY}
    while not (found := read_services(folder)).ready:
        if not found.running:
            raise UnreachableError("the services have ended while they were starting", _last_words(folder / _LOG))
        _tell_ready(found, told, tell)
        _require_hope(found, before)
        if time.monotonic() > deadline:
            late = [service for service in found.services if service.state is not ServiceState.READY]
            names = " and ".join(service.name for service in late)
            raise UnreachableError(f"not ready after {READY_SECONDS:g} s: {names}", _last_words(Path(late[0].log)))
        time.sleep(_POLL_SECONDS)
    _tell_ready(found, told, tell)


def _tell_ready(found: Services, told: set[str], tell: Tell) -> None:
    for service in found.services:
        if service.state is ServiceState.READY and service.name not in told:
            told.add(service.name)
            took = f"ready {service.ready_seconds or 0.0:.1f} s after its start"
            tell(f"{service.name}: {took}{', at ' if service.url else ''}{service.url}")


def _require_hope(found: Services, before: Mapping[str, int]) -> None:
    """One that ends because another is not there yet says nothing about itself."""
    ready = {service.name for service in found.services if service.state is ServiceState.READY}
    for service in found.services:
        hopeless = service.restarts - before.get(service.name, 0) >= _TRIES
        if hopeless and service.name not in ready and ready.issuperset(service.needs):
            raise UnreachableError(
                f"{service.name} does not start: {describe_exit(service.last_exit)}, {_TRIES} times",
                _last_words(Path(service.log)),
            )


def _tell_of_jobs(home: Home, now: bool, tell: Tell) -> None:
    url = read_services(home.services).url("server")
    answer = ask(f"{url}/api/v1/jobs?state=STARTING&state=RUNNING&state=STOPPING", str(home.token)) if url else None
    if names := [job["id"] for job in answer["jobs"]] if answer else []:
        does = "are cut off, and go on" if now else "save their state, and go on"
        tell(f"jobs that run {does} after the next `epochal up`: {', '.join(names)}")


def _end_supervisor(folder: Path, now: bool, tell: Tell) -> None:
    """Ask it to end, by signal, and wait; its services tell how far it has come."""
    while (pid := supervisor_pid(folder)) is None:  # it has the lock, and is about to say so
        if not is_locked(supervisor_lock(folder)):
            return
        time.sleep(_POLL_SECONDS)
    began = 0.0
    with suppress(psutil.NoSuchProcess, ProcessLookupError):
        began = created(psutil.Process(pid))
        os.kill(pid, signal.SIGINT if now else signal.SIGTERM)
    deadline = time.monotonic() + _most_seconds(folder)
    told: dict[str, ServiceState] = {}
    ended = False
    while not ended:
        # It lets go of the lock a moment before its process is gone.
        ended = not is_locked(supervisor_lock(folder)) and not is_alive(pid, began)
        for service in reversed(read_services(folder).services):
            _tell_ending(service, told, tell)
        if time.monotonic() > deadline:
            tell(f"the supervisor (pid {pid}) does not answer; it is killed")
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            deadline = float("inf")
        time.sleep(_POLL_SECONDS)


def _tell_ending(service: ServiceStatus, told: dict[str, ServiceState], tell: Tell) -> None:
    if told.get(service.name) is service.state:
        return
    told[service.name] = service.state
    if service.state is ServiceState.STOPPING:
        tell(f"waiting for {service.name} to end")
    elif service.state is ServiceState.STOPPED:
        tell(f"{service.name} has ended ({describe_exit(service.last_exit)})")


def _most_seconds(folder: Path) -> float:
    """How long the supervisor itself waits for its services, and some more."""
    plan = Plan.from_json((folder / "plan.json").read_text(encoding="utf-8"))
    return sum(service.stop_seconds for service in plan.services) + 30.0


def _last_words(log: Path) -> str:
    with suppress(OSError):
        if said := log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]:
            return "\n  ".join(["it said last:", *said]) + f"\nall of it is in {log}"
    return f"its output is in {log}"
