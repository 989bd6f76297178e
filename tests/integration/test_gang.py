"""Gangs on a real private Ray: forming, running, failing and stopping."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from epochal.engine.code import pack
from epochal.engine.connection import Connection, connect
from epochal.engine.events import Done, Event, Failed, FailureKind, Heartbeat, Log, Reported, Started
from epochal.engine.gang import Gang
from epochal.engine.place import GangRequest, Place, reserve
from epochal.engine.watchdog import DEFAULT_LIMITS
from epochal.errors import CapacityError
from epochal.training.control import Progress, Saved
from polling import gone, niceness_of_children, until

TARGETS = "gang_targets"
HERE = Path(__file__).parent
WAIT = 60.0
CREDENTIALS = {
    "EPOCHAL_TOKEN": "ep_of-the-agent",
    "EPOCHAL_LEDGER": "postgresql://epochal:ledgerpw@db/epochal",
    "MLFLOW_TRACKING_URI": "http://ada:uripw@mlflow.example",
    "MLFLOW_TRACKING_USERNAME": "the-agent",
    "MLFLOW_TRACKING_PASSWORD": "mlflowpw",
    "MLFLOW_TRACKING_TOKEN": "mlflowtoken",
}
SECRET = "it's-1/2 s3cret"
_WAITING = ("ray::IDLE", "ray::hold")


@pytest.fixture(scope="module")
def ray_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def cluster(ray_home: Path) -> Iterator[Connection]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)  # where the workers find the targets
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        patch.setenv("GANG_SECRET", SECRET)
        with connect(token_path=ray_home / "ray_token", cpus=3) as connection:
            yield connection


@pytest.fixture
def place(cluster: Connection) -> Iterator[Place]:
    with reserve(cluster, GangRequest("digits", (2, 2)), WAIT) as place:
        yield place


@pytest.fixture
def one_place(cluster: Connection) -> Iterator[Place]:
    """For one worker."""
    with reserve(cluster, GangRequest("digits", (1, 1)), WAIT) as place:
        yield place


@pytest.fixture
def gang(place: Place) -> Gang:
    return Gang(place)


@pytest.fixture(scope="module")
def several(cluster: Connection, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    """The folder and the events of one worker that did, one after the other, what needs no worker of its own."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("several")
    (source / "shipped").mkdir()
    (source / "shipped/__init__.py").touch()
    (source / "shipped/nets.py").write_text("SIZE = 21\n")
    request = GangRequest("digits", (1, 1), package=pack(source, folder / "packages"))
    secrets = [*CREDENTIALS.values(), "uripw", "ledgerpw"]
    targets = {"see_credentials": secrets, "use_shipped_code": {}, "load_with_processes": {}, "flood": {}}
    with reserve(cluster, request, WAIT) as place:
        return folder, run(place, "one_after_another", folder, targets)


def results(events: list[Event]) -> dict[str, Any]:
    assert isinstance(events[-1], Done), events[-1]
    return dict(events[-1].result)


def waiting_processes() -> list[int]:
    """Of this process's own Ray: idle ones, and those that are held until all are warm."""
    ours = {child.pid for child in psutil.Process().children(recursive=True)}
    found = [one for one in psutil.process_iter(["name"]) if one.pid in ours and one.info["name"] in _WAITING]
    return [one.pid for one in found if not gone(one.pid)]  # the name of one that has ended is there until it is reaped


def run(place: Place, target: str, folder: Path, payload: object = None, attempt: int = 1) -> list[Event]:
    return list(Gang(place).run(f"{TARGETS}:{target}", payload, folder, attempt))


def only(kind: type[Event], events: list[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]


def failure(events: list[Event]) -> Failed:
    assert isinstance(events[-1], Failed), events
    assert len(only(Failed, events)) == 1
    return events[-1]


def test_an_attempt_trains_once_the_older_one_writes_no_more(cluster: Connection, tmp_path: Path) -> None:
    """As when an agent that was cut off still runs the older one: nobody but its own worker ends it."""
    request = GangRequest("digits", (1, 1))
    with (
        reserve(cluster, request, WAIT) as cut_off,
        reserve(cluster, request, WAIT) as newer,
        ThreadPoolExecutor(1) as threads,
    ):
        older = threads.submit(run, cut_off, "write_on", tmp_path, None, 1)
        until((tmp_path / "written").exists, "the older attempt writes")
        newest = run(newer, "write_on", tmp_path, None, 2)[-1]
        assert failure(older.result()).kind is FailureKind.INFRASTRUCTURE
    assert isinstance(newest, Done)
    at_first, later = newest.result
    assert at_first == later > 0


def test_a_job_s_code_finds_no_credentials_of_the_agent(several: tuple[Path, list[Event]]) -> None:
    assert results(several[1])["see_credentials"] == []
    assert os.environ.items() >= CREDENTIALS.items(), "the agent has them still"


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_killed_worker_is_named_and_the_next_attempt_starts_at_once_and_stops_when_asked(
    place: Place, tmp_path: Path, rank: int
) -> None:
    killed = 0.0
    pids: dict[int, int] = {}
    last: Event | None = None
    for last in Gang(place).run(f"{TARGETS}:step_forever", None, tmp_path, 1):
        if isinstance(last, Started):
            pids[last.rank] = last.pid
        if isinstance(last, Reported) and not killed:
            killed = time.perf_counter()
            os.kill(pids[rank], signal.SIGKILL)
    assert isinstance(last, Failed)
    assert (last.rank, last.kind) == (rank, FailureKind.INFRASTRUCTURE)
    assert all(gone(pid) for pid in pids.values())
    noticed = time.perf_counter()
    begun, events = until_stopped(Gang(place), tmp_path, 2)
    assert (tmp_path / "attempts/2/stop").exists()
    assert [event.result for event in only(Done, events)] == ["stopped", "stopped"]
    reports = [(event.rank, event.report) for event in only(Reported, events)]
    assert next(report.step for _, report in reports if isinstance(report, Progress)) == 10
    assert [rank for rank, report in reports if isinstance(report, Saved)] == [0]
    print(f"noticed after {noticed - killed:.3f} s, the next attempt steps after {begun - killed:.3f} s")


def until_stopped(gang: Gang, folder: Path, attempt: int) -> tuple[float, list[Event]]:
    """When an attempt told of its steps, upon which it is asked to stop, and all its events."""
    events, begun = [], 0.0
    for event in gang.run(f"{TARGETS}:step_forever", None, folder, attempt):
        events.append(event)
        if isinstance(event, Reported) and isinstance(event.report, Progress):
            begun = begun or time.perf_counter()
            gang.stop.request()
    return begun, events


@pytest.mark.parametrize(
    ("how", "rank", "kind"),
    [
        pytest.param("exception", 1, FailureKind.USER_ERROR, marks=pytest.mark.slow),
        pytest.param("memory", 0, FailureKind.OUT_OF_MEMORY, marks=pytest.mark.slow),
        pytest.param("exit", 1, FailureKind.USER_ERROR, marks=pytest.mark.slow),
    ],
)
def test_the_first_failing_rank_is_named(place: Place, tmp_path: Path, how: str, rank: int, kind: FailureKind) -> None:
    failed = failure(run(place, "fail_after_a_while", tmp_path, {"how": how, "rank": rank}))
    assert (failed.rank, failed.kind) == (rank, kind)
    if how == "exit":
        assert re.search(r"your code ended .* os\._exit\(3\) \(gang_targets\.py, line \d+: os", failed.message)
    if how == "exception":
        assert failed.message == "ValueError: the labels do not match"
        assert "gang_targets.py" in failed.traceback


@pytest.mark.parametrize("how", [pytest.param("object", marks=pytest.mark.slow), "exception"])
def test_what_a_worker_sends_is_never_unpickled_here(one_place: Place, tmp_path: Path, how: str) -> None:
    """Its process runs the job's own code; Ray would unpickle whatever comes from there."""
    failed = failure(run(one_place, "attack", tmp_path, how))
    assert failed.kind is FailureKind.USER_ERROR
    assert ("no event" in failed.message) == (how == "object"), failed
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("how", ["sigstop", pytest.param("sleep", marks=pytest.mark.slow)])
def test_a_hang_is_noticed_and_ended(cluster: Connection, tmp_path: Path, how: str) -> None:
    limits = {**DEFAULT_LIMITS, "train": 3.0}
    payload = {"how": how, "rank": 1, "step": 200}
    with reserve(cluster, GangRequest("digits", (2, 2)), WAIT) as place:
        events = list(Gang(place, limits=limits).run(f"{TARGETS}:fail_after_a_while", payload, tmp_path, 1))
        failed = failure(events)
        assert failed.kind == FailureKind.HANG
        assert failed.rank == 1 or how == "sleep"
        assert "no progress for" in failed.message
        assert all(gone(event.pid) for event in only(Started, events))
        assert only(Heartbeat, events)


@pytest.mark.slow  # as the watchdog judges it is among its own tests
def test_a_disk_that_hangs_is_a_hang_of_its_worker(cluster: Connection, tmp_path: Path) -> None:
    """The training waits for its saver, on every worker; only that of rank 1 waits for a disk."""
    limits = {**DEFAULT_LIMITS, "checkpoint": 3.0}
    with reserve(cluster, GangRequest("digits", (2, 2)), WAIT) as place:
        gang = Gang(place, limits=limits)
        failed = failure(list(gang.run(f"{TARGETS}:save_where_a_disk_hangs", {"rank": 1}, tmp_path, 1)))
    assert (failed.rank, failed.kind) == (1, FailureKind.HANG)
    assert "in phase 'checkpoint' after step 5" in failed.message


@pytest.mark.parametrize(
    ("workers", "target", "phase", "step"),
    [
        (1, "leave_a_child", "train", 1),
        pytest.param(2, "fail_after_a_while", "train", 5, marks=pytest.mark.slow),
        pytest.param(2, "save_where_a_disk_hangs", "checkpoint", 5, marks=pytest.mark.slow),
    ],
)
def test_a_gang_that_does_not_end_within_its_grace_is_killed(
    cluster: Connection, tmp_path: Path, workers: int, target: str, phase: str, step: int
) -> None:
    """The last rank is stuck, in a step or in its save, and the other one waits for it; its child goes with it."""
    events: list[Event] = []
    payload = {"how": "sleep", "rank": workers - 1, "step": step}
    with reserve(cluster, GangRequest("digits", (workers, workers)), WAIT) as place:
        gang = Gang(place)
        for event in gang.run(f"{TARGETS}:{target}", payload, tmp_path, 1):
            events.append(event)
            if isinstance(event, Heartbeat) and event.step == step:
                gang.stop.request(0.5)
    told = f"killed 0.5 s after it was asked to end, in phase {phase!r} after step {step}"
    assert failure(events).message == told
    assert all(gone(event.pid) for event in only(Started, events))
    if target == "leave_a_child":
        child = int("".join(event.text for event in only(Log, events)).split()[1])
        until(lambda: gone(child), "the end of the worker's child")


@pytest.mark.slow  # one that steps is stopped above
def test_a_gang_that_is_stopped_while_it_starts_waits_for_nobody(gang: Gang, tmp_path: Path) -> None:
    events = []
    for event in gang.run(f"{TARGETS}:step_forever", None, tmp_path, 1):
        events.append(event)
        gang.stop.request()  # rank 1 is started once rank 0 has
    assert [(type(event), event.rank) for event in events] == [(Started, 0)]
    until(lambda: all(gone(event.pid) for event in only(Started, events)), "the end of rank 0")


def test_shipped_code(several: tuple[Path, list[Event]]) -> None:
    assert results(several[1])["use_shipped_code"] == 42


def test_loader_processes_and_compilation_work(several: tuple[Path, list[Event]]) -> None:
    assert results(several[1])["load_with_processes"] == sum(range(64)) + 3.0


def test_a_flood_of_output_is_kept_within_bounds(several: tuple[Path, list[Event]]) -> None:
    folder, events = several
    text = "".join(event.text for event in only(Log, events))
    assert text.endswith("done\n")
    assert len(text) < 100_000
    assert (folder / "logs/attempt-1/rank-0.log").stat().st_size > 1_000_000


@pytest.mark.parametrize("how", ["raises", pytest.param("sigkill", marks=pytest.mark.slow)])
def test_no_secret_leaves_its_worker(cluster: Connection, tmp_path: Path, how: str) -> None:
    with reserve(cluster, GangRequest("digits", (1, 1), secrets=("GANG_SECRET",)), WAIT) as place:
        events = run(place, "tell_secret", tmp_path, how)
    failed = failure(events)
    assert "s3cret" not in repr(events)
    log = (tmp_path / "logs/attempt-1/rank-0.log").read_text()
    assert log == "it is ***\n***\n" + ("last words" if how == "sigkill" else "")
    if how == "raises":
        assert failed.message.startswith("RuntimeError: cannot log in as ***...")
        assert failed.traceback.startswith("Traceback")
        assert 20_000 < len(failed.traceback) < 20_100


def test_too_big_and_too_busy(cluster: Connection, place: Place) -> None:
    with pytest.raises(CapacityError, match=r"8 workers with 2 CPU each can never fit"):
        reserve(cluster, GangRequest("big", (8, 8), cpus=2), WAIT)
    with pytest.raises(CapacityError, match="no room") as busy:
        reserve(cluster, GangRequest("second", (3, 3)), 0.5)
    assert not busy.value.permanent


def test_an_elastic_place_takes_what_is_free_and_runs_a_function_on_every_worker(
    cluster: Connection, place: Place, tmp_path: Path
) -> None:
    until(lambda: cluster.nodes()[0].available.get("CPU", 0) <= 1, "Ray's view of what is free")
    with reserve(cluster, GangRequest("elastic", (1, 3)), WAIT) as second:
        assert second.world_size == 1
    place.close()
    request = GangRequest("elastic", (1, 2), cpus=0.5, env={"GREETING": "hello"})
    with reserve(cluster, request, WAIT) as third:
        assert third.world_size == 2
        events = run(third, "add_up", tmp_path, {"x": [1]})
    found = {event.rank: event.result for event in events if isinstance(event, Done)}
    assert set(found) == {0, 1}
    for rank, result in found.items():
        assert result["total"] == 3.0
        assert (result["threads"], result["variable"], result["local_rank"]) == (1, "hello", rank)
        assert result["interface"] in psutil.net_if_addrs()
        assert result["payload"] == {"x": [1]}
        log = (tmp_path / f"logs/attempt-1/rank-{rank}.log").read_text()
        assert log == f"rank {rank} of 2: 3.0\nfrom a child\n"
        assert "".join(event.text for event in events if isinstance(event, Log) and event.rank == rank) == log


def connections(process: psutil.Process) -> list[Any]:
    try:
        return process.net_connections()
    except psutil.NoSuchProcess:
        return []


def test_one_agent_of_ray_runs_behind_everything_else_and_no_other(cluster: Connection) -> None:
    """That for runtime environments; what stands in for the dashboard's costs nothing."""
    # That of a cluster before may be there still, dead: Ray waits a second for its end.
    raylets = [child for child in psutil.Process().children() if child.name() == "raylet"]
    ours = f"--gcs-address={cluster.address}"
    (raylet,) = [one for one in raylets if ours in (one.as_dict(["cmdline"])["cmdline"] or [])]
    until(lambda: "ray::RuntimeEnvAgent" in niceness_of_children(raylet), "the agent")
    others = {name: nice for name, nice in niceness_of_children(raylet).items() if name not in _WAITING}
    assert others == {"ray::RuntimeEnvAgent": 19, "cat": raylet.nice()}


def test_everything_listens_on_loopback_and_wants_the_token(cluster: Connection, ray_home: Path) -> None:
    assert oct((ray_home / "ray_token").stat().st_mode)[-3:] == "600"
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = {
        connection.laddr.ip.removeprefix("::ffff:")
        for process in family
        for connection in connections(process)
        if connection.status == psutil.CONN_LISTEN
    }
    assert "127.0.0.1" in listening
    assert listening <= {"127.0.0.1", "::1"}, "the driver of the browser tests listens on the latter"
    script = f"from ray._raylet import GcsClient; GcsClient(address='{cluster.address}')"
    for token, accepted in ((ray_home / "ray_token").read_text(), True), ("0" * 64, False):
        environment = {**os.environ, "RAY_AUTH_TOKEN": token}
        client = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=False)
        assert (b"AuthenticationError" in client.stderr) != accepted


@pytest.fixture(scope="module")
def warm(cluster: Connection) -> Connection:
    """The cluster with a warm worker, which takes seconds to start, as does the one that follows each that was used: so
    the tests that need one are the last."""
    cluster.keep_warm(1)
    until(lambda: sum(cluster.warm.idle().values()) >= 1, "a warm worker")
    return cluster


def test_variables_that_torch_reads_at_its_import_have_an_effect(warm: Connection, tmp_path: Path) -> None:
    idle = set().union(*warm.warm._idle.values())
    env = {"TORCH_LOGS": "+dynamo", "OMP_NUM_THREADS": "3", "OMP_DYNAMIC": "true"}
    begun = time.perf_counter()
    with reserve(warm, GangRequest("digits", (1, 1), env=env), WAIT) as place:
        (done,) = only(Done, run(place, "look_at_torch", tmp_path))
        print(f"started in a new process and done in {time.perf_counter() - begun:.3f} s")
    assert done.result["dynamo"] == logging.DEBUG
    assert done.result["threads"] == 3
    assert done.result["pid"] not in idle
    assert set().union(*warm.warm._idle.values()) == idle, "the warm ones wait for others"


def test_a_warm_worker_is_used_names_itself_and_is_replaced(warm: Connection, one_place: Place, tmp_path: Path) -> None:
    idle = set().union(*warm.warm._idle.values())
    events = Gang(one_place).run(f"{TARGETS}:leave_a_child", None, tmp_path, 1)
    started = next(event for event in events if isinstance(event, Started))
    assert any(isinstance(event, Log) for event in events), "it trains"
    listed = subprocess.run(["ps", "-o", "args=", "-p", str(started.pid)], capture_output=True, check=True)
    assert listed.stdout.decode().split() == ["epochal:digits:rank0"]
    assert psutil.Process(started.pid).nice() == psutil.Process().nice()
    assert {started.pid} == idle
    events.close()
    assert gone(started.pid)
    until(lambda: sum(warm.warm.idle().values()) >= 1, "a new warm worker")
    assert len(waiting_processes()) == 1, "Ray has started some that nobody asked for"
