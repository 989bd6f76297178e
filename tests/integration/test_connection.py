"""Joining Ray where nobody answers, and leaving nothing behind."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from epochal.engine import local_ray
from epochal.engine.connection import connect
from epochal.errors import UnreachableError
from polling import gone, until

HERE = Path(__file__).parent
WAIT = 60.0


def test_an_address_where_nobody_answers(tmp_path: Path) -> None:
    with (
        pytest.raises(UnreachableError, match="no Ray cluster answers") as error,
        connect("127.0.0.1:1", token_path=tmp_path / "token"),
    ):
        pass
    assert "ray start --head" in error.value.hint
    with pytest.raises(UnreachableError, match="no Ray address"), connect("nonsense", token_path=tmp_path / "token"):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the port cannot be kept")
def test_nobody_gets_the_port_of_an_agent_that_is_slow_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The raylet, and so every job, ended with an agent that found its port taken."""
    quick = local_ray._agent_command
    slow = ["sh", "-c", 'sleep 4; exec "$@"', "sh"]
    monkeypatch.setattr(local_ray, "_agent_command", lambda *component: [*slow, *quick(*component)])
    with connect(token_path=tmp_path / "token", cpus=1):
        (raylet,) = [one for one in psutil.Process().children() if one.name() == "raylet"]
        (port,) = [word.partition("=")[2] for word in raylet.cmdline() if word.startswith("--runtime_env_agent_port=")]
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((local_ray.LOOPBACK, int(port)))
        until(lambda: "ray::RuntimeEnvAgent" in [one.name() for one in raylet.children()], "the agent")
        until(lambda: socket.socket().connect_ex((local_ray.LOOPBACK, int(port))) == 0, "the agent listens")
        assert raylet.is_running()
    with socket.socket() as other:
        other.bind((local_ray.LOOPBACK, int(port)))


DRIVER = """
import sys, time
from pathlib import Path
from epochal.engine.connection import connect
from epochal.engine.events import Reported
from epochal.engine.gang import Gang
from epochal.engine.place import GangRequest, reserve
home = Path(sys.argv[1])
with connect(token_path=home / "token", cpus=2, temp_dir=home / "ray") as connection:
    with reserve(connection, GangRequest("digits", (2, 2)), 60) as place:
        for event in Gang(place).run("gang_targets:step_forever", None, home, 1):
            if isinstance(event, Reported):
                if sys.argv[2] == "end":
                    break
                print("stepping", flush=True)
print("ended", flush=True)
"""


@pytest.mark.parametrize("ending", [pytest.param("end", marks=pytest.mark.slow), "kill"])
def test_nothing_is_left_running(tmp_path: Path, ending: str) -> None:
    """Also where the driver is killed, and a worker is stopped and so can do nothing about it."""
    tmp_path = tmp_path.parent / ending[0]
    tmp_path.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(HERE), "HOME": str(tmp_path), "RAY_AUTH_TOKEN": "another"}
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path), ending], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert driver.stdout is not None
        assert driver.stdout.readline().strip() == {"end": "ended", "kill": "stepping"}[ending]
        family = psutil.Process(driver.pid).children(recursive=True) if ending == "kill" else []
        if ending == "kill":
            workers = [one for one in family if one.name().startswith("epochal:") or "rank1" in one.cmdline()[0]]
            workers[0].suspend()
            driver.kill()
        driver.wait(WAIT)
        until(lambda: not any(one.is_running() and not gone(one.pid) for one in family), "the end of all")
        until(lambda: list((tmp_path / "ray").iterdir()) == [], "the end of the folder")
        assert not (tmp_path / ".ray").exists()
    finally:
        driver.kill()
        driver.wait()
