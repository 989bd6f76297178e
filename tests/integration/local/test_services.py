"""`up` and `down` with small real services in the place of the big ones."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from epochal.errors import ConflictError, UnreachableError
from epochal.local import orphans, services
from epochal.local.local_plan import Options
from epochal.local.orphans import find_orphans
from epochal.local.port import holder_of, is_free
from epochal.local.service_plan import Plan, Probe, ServicePlan
from epochal.local.service_state import MARK, Services, ServiceState, read_services
from epochal.local.services import down, up
from epochal.settings import Home, home
from epochal.urls import free_port

SMALL = Path(__file__).with_name("small_service.py")
URI = "http://elsewhere:5000"


class Place:
    """A home whose services are small ones; ``extra`` are more options of the server."""

    def __init__(self, here: Home) -> None:
        self.home = here
        self.options = Options(port=free_port(), mlflow_port=free_port())
        self.extra: tuple[str, ...] = ()
        self.told: list[str] = []

    def plan(self, here: Home, options: Options, tracking_uri: str) -> Plan:
        mlflow = self._small("mlflow", options.mlflow_port, "--child")
        server = self._small("server", options.port, *self.extra)
        return Plan(here.services, (mlflow, server), {**vars(options), "mlflow_url": mlflow.url})

    def up(self, options: Options | None = None) -> services.Up:
        return up(self.home, options or self.options, URI, self.told.append)

    def down(self, now: bool = False) -> bool:
        return down(self.home, now, self.told.append)

    def _small(self, name: str, port: int | None, *options: str) -> ServicePlan:
        url = f"http://127.0.0.1:{port}"
        return ServicePlan(name, (sys.executable, str(SMALL), str(port), *options), Probe(url), url, stop_seconds=60)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    place = Place(home())
    monkeypatch.setattr(services, "local_plan", place.plan)
    monkeypatch.setattr(orphans, "QUIET_SECONDS", 0.5)
    yield place
    place.down(now=True)
    assert find_orphans(place.home.services) == []


def pids(found: Services) -> list[int | None]:
    return [found.supervisor, *(service.pid for service in found.services)]


def kill(pid: int | None) -> None:
    """SIGKILL it, and wait until the kernel has let go of what it held."""
    assert pid is not None
    process = psutil.Process(pid)
    process.kill()
    process.wait(10)


def test_up_and_up_again_and_down(place: Place) -> None:
    first = place.up()
    assert not first.already
    assert first.services.ready
    assert first.services.options["port"] == place.options.port
    assert [line.split(":")[0] for line in sorted(place.told)] == ["mlflow", "server"]
    second = place.up(Options())
    assert second.already
    assert pids(second.services) == pids(first.services)
    assert place.down()
    ended = [line for line in place.told if "ended" in line]
    assert ended == ["server has ended (exit code 0)", "mlflow has ended (exit code 0)"]
    assert find_orphans(place.home.services) == []
    assert read_services(place.home.services) == Services(False)
    assert not place.down()


def test_two_at_once_start_one(place: Place) -> None:
    came: list[services.Up] = []
    threads = [threading.Thread(target=lambda: came.append(place.up())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.already for one in came) == [False, True, True]
    assert len({one.services.supervisor for one in came}) == 1


def test_other_options_are_refused(place: Place) -> None:
    place.up()
    with pytest.raises(ConflictError) as refused:
        place.up(Options(port=1, cpus=2))
    assert f"--port is {place.options.port}, not 1" in refused.value.message
    assert "--cpus is the default, not 2" in refused.value.message
    assert "epochal down" in refused.value.hint


def test_second_up_waits_for_what_is_starting_again(place: Place) -> None:
    kill(place.up().services["server"].pid)
    again = place.up(Options())
    assert again.already
    assert again.services["server"].state is ServiceState.READY


def test_failure_tells_the_last_words_and_leaves_nothing(place: Place) -> None:
    place.extra = ("--fail", "7")
    with pytest.raises(UnreachableError) as failed:
        place.up()
    assert "server does not start: exit code 7" in failed.value.message
    assert "cannot go on" in failed.value.hint
    assert str(place.home.services / "server.log") in failed.value.hint
    assert find_orphans(place.home.services) == []
    assert not read_services(place.home.services).running


def test_interrupted_up_leaves_nothing(place: Place) -> None:
    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        up(place.home, place.options, URI, interrupt)
    assert find_orphans(place.home.services) == []


def test_taken_port_is_named_with_who_has_it(place: Place) -> None:
    with socket.create_server(("127.0.0.1", place.options.port or 0)):
        assert not is_free(place.options.port or 0)
        with pytest.raises(ConflictError) as refused:
            place.up()
    assert f"port {place.options.port}, where the server would listen" in refused.value.message
    assert f"pid {os.getpid()}" in refused.value.message
    assert "--port" in refused.value.hint
    assert find_orphans(place.home.services) == []
    assert holder_of(free_port()) == ""


def test_up_after_a_killed_supervisor(place: Place) -> None:
    kill(place.up().services.supervisor)
    again = place.up()
    assert not again.already
    assert again.services.ready


def test_down_after_a_killed_supervisor(place: Place) -> None:
    place.extra = ("--deaf",)
    kill(place.up().services.supervisor)
    assert place.down(now=True)
    assert any(line.startswith("ending orphaned processes") for line in place.told)
    assert find_orphans(place.home.services) == []
    assert not place.down()


def test_down_now_does_not_wait(place: Place) -> None:
    place.extra = ("--deaf",)
    place.up()
    began = time.monotonic()
    assert place.down(now=True)
    assert time.monotonic() - began < 30


def test_down_kills_a_supervisor_that_does_not_answer(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = psutil.Process(place.up().services.supervisor)
    supervisor.suspend()
    monkeypatch.setattr(services, "_most_seconds", lambda folder: 0.2)
    assert place.down()
    assert any("does not answer" in line for line in place.told)
    assert not supervisor.is_running() or supervisor.status() == psutil.STATUS_ZOMBIE


def test_processes_of_other_homes_are_left_alone(place: Place, tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "300"], env={**os.environ, MARK: str(tmp_path / "other")}) as other:
        with subprocess.Popen(["sleep", "300"], env={**os.environ, MARK: str(place.home.services)}) as left:
            place.home.services.mkdir(parents=True)
            assert place.down(now=True)
            assert not psutil.pid_exists(left.pid)
        assert other.poll() is None
        other.kill()
