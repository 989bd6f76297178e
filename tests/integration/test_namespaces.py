"""Three Ray nodes in three network namespaces, the host name resolving to loopback: a gang over all of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from namespaces import Namespace, bridged
from ray_nodes import PORT, environment, ray_home, ray_node

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("ip") is None, reason="needs `ip` (iproute2)"),
]

HERE = Path(__file__).parent
NODES = 3
TARGETS = {"PYTHONPATH": str(HERE)}
"""Where the workers find `gang_targets`."""

DRIVER = """
import json, sys
from pathlib import Path
from epochal.engine.connection import connect
from epochal.engine.events import Done, Failed, Started
from epochal.engine.gang import Gang
from epochal.engine.place import GangRequest, reserve
from epochal.engine.watchdog import DEFAULT_LIMITS

address, home = sys.argv[1], Path(sys.argv[2])
stop_one = {"how": "sigstop", "rank": 2, "step": 200}
with connect(address, token_path=home / "token") as connection:
    connection.keep_warm(1)
    with reserve(connection, GangRequest("net", (3, 3)), 60) as place:
        gang = Gang(place, limits={**DEFAULT_LIMITS, "train": 3.0})
        events = list(gang.run("gang_targets:add_up", None, home, 1))
        hang = list(gang.run("gang_targets:fail_after_a_while", stop_one, home, 2))
print(json.dumps({
    "hosts": {event.rank: event.host for event in events if isinstance(event, Started)},
    "results": {event.rank: event.result for event in events if isinstance(event, Done)},
    "failed": [event.message + event.traceback for event in events if isinstance(event, Failed)],
    "hang": [hang[-1].rank, hang[-1].kind],
    "pids": [event.pid for event in events + hang if isinstance(event, Started)],
}))
"""

LOOKER = """
import sys, time
from pathlib import Path
from epochal.engine.connection import connect

address, home = sys.argv[1], Path(sys.argv[2])
with connect(address, token_path=home / "token") as connection:
    connection.keep_warm(None)
    for nodes in (1, 2, 1):
        while len(connection.warm.idle()) != nodes:
            time.sleep(0.05)
        print(nodes, flush=True)
"""

CUT_OFF = """
import sys, time
from pathlib import Path
from epochal.engine.connection import connect
from epochal.engine.events import Failed, Reported
from epochal.engine.gang import Gang
from epochal.engine.place import GangRequest, reserve

address, home = sys.argv[1], Path(sys.argv[2])
with connect(address, token_path=home / "token") as connection:
    with reserve(connection, GangRequest("net", (2, 2)), 60) as place:
        for event in Gang(place).run("gang_targets:step_forever", None, home, 3):
            if isinstance(event, Reported):
                (home / "stepping").touch()
            if isinstance(event, Failed):
                print(time.time(), event.kind, event.message, place.is_whole, flush=True)
    (mine,) = connection.nodes()
    with reserve(connection, GangRequest("net", (1, 2)), 60) as place:
        print(time.time(), place.world_size, mine.id == connection.node_id, flush=True)
"""

APART = """
import json, sys
from pathlib import Path
import psutil
from epochal.engine.connection import connect
from epochal.engine.events import Done
from epochal.engine.gang import Gang
from epochal.engine.place import GangRequest, reserve

address, home = sys.argv[1], Path(sys.argv[2])
with connect(address, token_path=home / "token") as connection:
    with reserve(connection, GangRequest("net", (1, 1)), 60) as place:
        events = list(Gang(place).run("gang_targets:add_up", None, home, 1))
    seen = [one.name() for one in psutil.process_iter() if "raylet" in one.name()]
    print(json.dumps([seen, [event.result["total"] for event in events if isinstance(event, Done)], connection.lost()]))
"""

INTRUDER = """
import sys
import time
from pathlib import Path
from epochal.engine.connection import connect
from epochal.errors import UnreachableError
try:
    with connect(sys.argv[1], token_path=Path(sys.argv[2]) / "another_token"):
        print("let in")
except UnreachableError as error:
    print(error, error.hint)
"""


@pytest.fixture
def home() -> Iterator[Path]:
    with ray_home() as home:
        yield home


@pytest.fixture
def namespaces() -> Iterator[list[Namespace]]:
    with ExitStack() as stack:
        yield stack.enter_context(bridged(f"ep{os.getpid() % 100000}", NODES))


@pytest.fixture
def cluster(namespaces: list[Namespace], home: Path) -> Iterator[list[Namespace]]:
    with ExitStack() as stack:
        for space in namespaces:
            stack.enter_context(ray_node(space, namespaces[0], home, **TARGETS))
        yield namespaces


def driver(script: str, space: Namespace, address: str, home: Path, **variables: str) -> str:
    command = space.command(sys.executable, "-c", script, address, str(home))
    variables = environment(home, **TARGETS, **variables)
    finished = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=240, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def test_a_gang_over_three_nodes(cluster: list[Namespace], home: Path) -> None:
    head = f"{cluster[0].address}:{PORT}"
    told = json.loads(driver(DRIVER, cluster[1], head, home).splitlines()[-1])
    assert told["failed"] == []
    assert sorted(told["hosts"].values()) == [space.address for space in cluster]
    assert [result["total"] for result in told["results"].values()] == [6.0] * NODES
    assert {result["interface"] for result in told["results"].values()} == {"eth0"}
    assert {result["local_rank"] for result in told["results"].values()} == {0}
    assert told["hang"] == [2, "HANG"]
    assert len(told["pids"]) == 2 * NODES
    assert not any(psutil.pid_exists(pid) for pid in told["pids"])
    assert "refuses the token" in driver(INTRUDER, cluster[1], head, home, RAY_AUTH_TOKEN="0" * 64)


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs `unshare` (util-linux)")
def test_a_driver_joins_the_node_whose_processes_it_does_not_see(namespaces: list[Namespace], home: Path) -> None:
    """As in a pod whose containers share folders and the network, and nothing else."""
    head = namespaces[0]
    with ray_node(head, head, home, **TARGETS):
        command = [*head.command("unshare", "--fork", "--pid", "--mount-proc"), sys.executable, "-c", APART]
        finished = subprocess.run(
            [*command, f"{head.address}:{PORT}", str(home)], env=environment(home, **TARGETS),
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert json.loads(finished.stdout.splitlines()[-1]) == [[], [1.0], ""]


def test_nodes_that_join_later_get_warm_workers_and_those_that_go_are_forgotten(
    namespaces: list[Namespace], home: Path
) -> None:
    head, other = namespaces[:2]
    with ExitStack() as nodes:
        nodes.enter_context(ray_node(head, head, home, **TARGETS))
        command = head.command(sys.executable, "-c", LOOKER, f"{head.address}:{PORT}", str(home))
        driver = subprocess.Popen(command, env=environment(home, **TARGETS), stdout=subprocess.PIPE, text=True)
        assert driver.stdout is not None
        try:
            assert driver.stdout.readline() == "1\n"
            with ray_node(other, head, home, **TARGETS):
                assert driver.stdout.readline() == "2\n"
            assert driver.stdout.readline() == "1\n"
            assert driver.wait(60) == 0
        finally:
            driver.kill()
            driver.wait()


def test_a_node_whose_cable_is_cut_is_named_within_half_a_minute(namespaces: list[Namespace], home: Path) -> None:
    """Ray itself takes 72 s; before that the healthy rank, which waits for the other, would be taken to hang."""
    head, other = namespaces[:2]
    with ray_node(head, head, home, **TARGETS), ray_node(other, head, home, **TARGETS):
        command = head.command(sys.executable, "-c", CUT_OFF, f"{head.address}:{PORT}", str(home))
        driver = subprocess.Popen(command, env=environment(home, **TARGETS), stdout=subprocess.PIPE, text=True)
        try:
            deadline = time.monotonic() + 120
            while not (home / "stepping").exists():
                assert driver.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
            other.cut()
            cut = time.time()
            told, _ = driver.communicate(timeout=120)
        finally:
            driver.kill()
            driver.wait()
            other.mend()
    named, room = told.splitlines()
    at, kind, message = named.split(" ", 2)
    again, workers, here = room.split()
    print(f"named {float(at) - cut:.1f} s after the cut: {message}")
    assert float(at) - cut < 30
    assert kind == "INFRASTRUCTURE"
    assert message.startswith(f"node {other.address} is not heard of for ")
    assert message.endswith("False"), "room on a node that is gone is no room"
    assert (workers, here) == ("1", "True")
    assert float(again) - float(at) < 20, "nobody waits for room there, though Ray still counts on it"


def test_a_job_trains_over_three_nodes(cluster: list[Namespace], home: Path) -> None:
    head = f"{cluster[0].address}:{PORT}"
    command = [sys.executable, "-m", "epochal.cli.main", "run", "jobs/quickstart.yaml", "--address", head, "-o", "json"]
    variables = environment(home, EPOCHAL_HOME=str(home / "epochal"))
    finished = subprocess.run(
        cluster[1].command(*command, "-s", f"resources.workers={NODES}"),
        env=variables,
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    summary = json.loads(finished.stdout)
    assert (summary["state"], summary["attempts"]) == ("SUCCEEDED", 1)
    assert summary["metrics"]["val/accuracy"] >= 0.97
    ranks = list((home / "epochal" / "storage" / "jobs" / summary["job"]).glob("logs/attempt-1/rank-*.log"))
    assert len(ranks) == NODES
