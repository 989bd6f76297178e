"""The supervisor with small real services: started together, watched, started again, ended in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from epochal.errors import ConflictError
from epochal.files import write_atomically
from epochal.local import service as service_module
from epochal.local.health import ask, is_healthy
from epochal.local.service import Service
from epochal.local.service_plan import Plan, Probe, ServicePlan
from epochal.local.service_state import (
    MARK,
    Services,
    ServiceState,
    read_services,
)
from epochal.urls import free_port
from polling import until

SMALL = Path(__file__).with_name("small_service.py")


def small(name: str, *options: str, stop_seconds: float = 10.0, needs: tuple[str, ...] = ()) -> ServicePlan:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = (sys.executable, str(SMALL), str(port), *options)
    return ServicePlan(name, command, Probe(url), url, stop_seconds=stop_seconds, needs=needs)


class Running:
    """A supervisor in a process of its own."""

    def __init__(self, folder: Path, *services: ServicePlan) -> None:
        self.folder = folder
        plan_file = folder / "plan.json"
        write_atomically(plan_file, Plan(folder, services).to_json())
        self.command = [sys.executable, "-m", "epochal.local.supervisor", str(plan_file)]
        self.process = subprocess.Popen(self.command)

    def until(self, condition: Callable[[Services], object], what: str) -> Services:
        return until(lambda: (found := read_services(self.folder)).services and condition(found) and found, what)

    def ready(self) -> Services:
        return self.until(lambda found: found.ready, "all services are ready")

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(*services: ServicePlan) -> Running:
        started.append(Running(tmp_path, *services))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.end(signal.SIGINT)


def marked(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def all_gone(folder: Path, seconds: float = 10.0) -> bool:
    return until(lambda: not marked(folder), "every process has ended", seconds)


def test_services_start_together_and_end_in_the_opposite_order(run: Callable[..., Running], tmp_path: Path) -> None:
    order = tmp_path / "order"
    services = [small(name, "--lazy", "0.5", "--order", str(order), name) for name in ("a", "b", "c")]
    running = run(*services)
    found = running.ready()
    assert [service.name for service in found.services] == ["a", "b", "c"]
    assert found.supervisor == running.process.pid
    for service in found.services:
        assert psutil.Process(service.pid).create_time() == service.created
        assert Path(service.log).read_text() == "started\n"
        assert service.ready_seconds is not None
        assert 0.5 < service.ready_seconds < 10
    begun = [service.created or 0.0 for service in found.services]
    first_ready = min((service.created or 0.0) + (service.ready_seconds or 0.0) for service in found.services)
    assert max(begun) < first_ready, "none waits for another"
    assert running.end() == 0
    assert order.read_text().split() == ["c", "b", "a"]
    assert all_gone(tmp_path)
    ended = read_services(tmp_path)
    assert not ended.running
    assert {service.state for service in ended.services} == {ServiceState.STOPPED}


def test_killed_service_is_back_on_its_port(run: Callable[..., Running]) -> None:
    running = run(small("a", "--child"), small("b"))
    before = running.ready()
    os.kill(before["a"].pid or 0, signal.SIGKILL)
    after = running.until(lambda found: found.ready and found["a"].restarts == 1, "a is back")
    assert after["a"].pid != before["a"].pid
    assert after["a"].url == before["a"].url
    assert after["a"].last_exit == -signal.SIGKILL
    assert after["b"] == before["b"]


def test_group_of_a_killed_service_ends_with_it(run: Callable[..., Running]) -> None:
    running = run(small("a", "--child"))
    leader = psutil.Process(running.ready()["a"].pid)
    children = leader.children()
    assert len(children) == 1
    leader.kill()
    running.until(lambda found: found.ready and found["a"].restarts == 1, "a is back")
    assert not children[0].is_running() or children[0].status() == psutil.STATUS_ZOMBIE


def test_everything_ends_with_a_killed_supervisor(run: Callable[..., Running], tmp_path: Path) -> None:
    running = run(small("a"), small("b"))
    before = running.ready()
    running.end(signal.SIGKILL)
    assert all_gone(tmp_path)
    left = read_services(tmp_path)
    assert not left.running
    assert left.services == before.services, "it could not clean up its file; the lock tells that it is stale"


def test_service_that_fails_is_tried_again_ever_later(run: Callable[..., Running]) -> None:
    running = run(small("a", "--fail", "7"))
    found = running.until(
        lambda found: found["a"].restarts >= 3 and found["a"].state is ServiceState.WAITING, "three tries"
    )
    assert found["a"].last_exit == 7
    assert Path(found["a"].log).read_text().count("cannot go on") >= found["a"].restarts


def test_deaf_service_is_killed_in_the_end(run: Callable[..., Running], tmp_path: Path) -> None:
    running = run(small("a", "--deaf", "--child", stop_seconds=0.5))
    running.ready()
    assert running.end() == 0
    assert all_gone(tmp_path)


def test_second_signal_ends_at_once(run: Callable[..., Running], tmp_path: Path) -> None:
    running = run(small("a"), small("b", "--deaf", stop_seconds=300))
    running.ready()
    running.process.terminate()
    running.until(lambda found: found["b"].state is ServiceState.STOPPING, "b is told to end")
    assert running.end(signal.SIGINT) == 0
    assert all_gone(tmp_path)


def test_service_that_dies_while_another_ends_is_started_again(run: Callable[..., Running]) -> None:
    """An agent that drains needs its server."""
    running = run(small("server"), small("agent", "--deaf", stop_seconds=300))
    before = running.ready()
    running.process.terminate()
    running.until(lambda found: found["agent"].state is ServiceState.STOPPING, "the agent is told to end")
    os.kill(before["server"].pid or 0, signal.SIGKILL)
    running.until(lambda found: found["server"].state is ServiceState.READY and found["server"].restarts, "it is back")


def test_second_supervisor_is_refused(run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch) -> None:
    running = run(small("a"))
    before = running.ready()
    refused = subprocess.run(running.command, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert ConflictError.__name__ in refused.stderr
    assert running.ready() == before


def test_agent_is_ready_once_its_server_lists_it(tmp_path: Path, run: Callable[..., Running]) -> None:
    token = tmp_path / "token"
    token.write_text("ep_secret\n")
    told = tmp_path / "pid"
    told.touch()
    server = small("server", "--lazy", "0.5", "--agent", "local", str(told))
    probe = Probe(f"{server.url}/agents", str(token), "local")
    command = ("/bin/sh", "-c", f"echo $$ > {told}; exec sleep 300")
    found = run(server, ServicePlan("agent", command, probe, needs=("server",))).ready()
    assert (found["agent"].ready_seconds or 0) > 0.5
    pid = found["agent"].pid or 0
    assert is_healthy(probe, pid)
    assert not is_healthy(probe, pid + 1), "that was an earlier one of the same name"
    assert not is_healthy(Probe(probe.url, str(token), "other"), pid)
    assert not is_healthy(Probe(probe.url, str(tmp_path / "missing")), pid)
    assert not is_healthy(Probe(f"{server.url}/sick"), pid)
    assert ask(server.url, str(token))["authorization"] == "Bearer ep_secret"


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_set_while_an_agent_starts_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., Running], hours: float
) -> None:
    """As NTP does at boot: before this agent was heard of, and after an earlier one was."""
    monkeypatch.setattr(service_module, "PROBE_STARTING_SECONDS", 0.02)
    heard_of = tmp_path / "pid"
    heard_of.write_text(str(os.getpid()))
    server = small("server", "--agent", "local", str(heard_of))
    run(server).ready()
    service = Service(ServicePlan("a", ("/bin/sleep", "300"), Probe(f"{server.url}/agents", agent="local")), tmp_path)
    try:
        with monkeypatch.context() as patch:
            set_to = time.time() - 3600 * hours
            patch.setattr(service_module.time, "time", lambda: set_to)
            service.watch(needed=True)
        begun = time.monotonic()
        watch_until(service, lambda: time.monotonic() > begun + 0.5)
        assert not service.ready, "another process of that name was heard of"
        heard_of.write_text(str(service.status.pid))
        watch_until(service, lambda: service.ready)
    finally:
        service.kill()


def test_stopped_service_is_killed_and_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "HUNG_SECONDS", 0.3)
    monkeypatch.setattr(service_module, "PROBE_SECONDS", 0.05)
    plan = small("a")
    monkeypatch.setattr(service_module, "is_healthy", lambda probe, pid: is_healthy(probe, pid, timeout=0.2))
    service = Service(plan, tmp_path)
    try:
        watch_until(service, lambda: service.ready)
        first = service.status.pid
        os.kill(first or 0, signal.SIGSTOP)
        watch_until(service, lambda: service.status.state is ServiceState.FAILING)
        watch_until(service, lambda: service.ready)
        assert service.status.pid != first
        assert service.status.restarts == 1
    finally:
        service.kill()


def test_nothing_is_concluded_where_what_it_needs_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "START_SECONDS", 0.1)
    service = Service(ServicePlan("a", ("/bin/sleep", "300"), Probe(f"http://127.0.0.1:{free_port()}")), tmp_path)
    try:
        service.watch(needed=False)
        time.sleep(0.3)
        service.watch(needed=False)
        assert service.status.state is ServiceState.STARTING
        watch_until(service, lambda: service.status.restarts == 1, needed=True)
    finally:
        service.kill()


def watch_until(service: Service, condition: Callable[[], bool], needed: bool = True) -> None:
    until(lambda: service.watch(needed) or condition(), "the service")


def test_big_log_is_kept_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "_LOG_LIMIT", 10)
    log = tmp_path / "a.log"
    log.write_text("older lines of it\n")
    service = Service(ServicePlan("a", ("/bin/sleep", "300"), Probe("http://127.0.0.1:9")), tmp_path)
    service.watch(needed=False)
    service.kill()
    assert (tmp_path / "a.log.1").read_text() == "older lines of it\n"
    assert log.read_text() == ""
