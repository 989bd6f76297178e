"""Every test is hermetic: its own home, a clean environment, no outside network, and nothing left running."""

from __future__ import annotations

import functools
import gc
import ipaddress
import itertools
import os
import random
import socket
import sys
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.internal.conjecture import providers

settings.register_profile("hermetic", derandomize=True, deadline=None, database=None, max_examples=40)
settings.register_profile("thorough", settings.get_profile("hermetic"), max_examples=200)
settings.load_profile("hermetic")
# What it finds out about Unicode, in seconds, is kept for the next run; no examples are.
set_hypothesis_home_dir(Path(__file__).parents[1] / ".hypothesis")
# It would draw constants of our code as well, of whatever modules are loaded: each process reads them for seconds, and
# an example that fails among all tests would not be drawn by its test alone.
providers._get_local_constants = lambda: providers._local_constants

FOREIGN_PREFIXES = ("EPOCHAL_", "RAY_", "MLFLOW_", "DATABRICKS_", "GLOO_", "NCCL_", "TORCHELASTIC_", "GIT_", "XDG_")
FOREIGN_NAMES = (
    "MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE", "NO_COLOR", "FORCE_COLOR",
    "PYTHONDONTWRITEBYTECODE",
)  # fmt: skip
NO_TELEMETRY = {"RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
QUIET = {"TORCH_CPP_LOG_LEVEL": "ERROR", "OMP_WAIT_POLICY": "PASSIVE"}
"""Without a network torch warns in every process that it cannot name its peers. Its threads wait for each other in
loops: where several processes share the cores, that takes more of them than the work."""
NO_GIT_SETTINGS = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}

SESSION_MARK = "TESTS_THAT_STARTED_ME"
"""Inherited by every process that a test starts, so that one whose parent is gone is found too."""

ENDS_WITH_ITS_PARENT = ("multiprocessing.resource_tracker", "multiprocessing.forkserver", "_inductor/compile_worker")


TESTS = Path(__file__).parent
TOGETHER = ("integration/agent", "browser", "integration/training", "integration/tracking", "rules")
"""Folders whose files share what takes long to start (a Ray, a browser, a gang, an MLflow server) or to read (all of
the code): one worker runs all of a folder."""

LONG = ("faults", "integration/test_gang.py", "integration/test_up.py")
ORDER = ("unit", *TOGETHER, *LONG, "integration", "inputs", "contract", "manifests", "kubernetes")
"""Unit tests first: they are quick, and closest to what is wrong. Then what takes long, so that short files are left
for the end, when otherwise one worker would still be at its last file and the others idle."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByFolder(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return next((folder for folder in TOGETHER if file.startswith(f"tests/{folder}/")), file)

    return ByFolder(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kill-seconds", default="600", help="How long the random kills go on, in seconds.")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported and collected stays to the end: the garbage collector leaves it out."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _position(item.path))
    if os.geteuid() == 0:
        return
    for item in items:
        if "root" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(scope="session", autouse=True)
def _clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fixtures of any scope start from this: nothing of the person who runs the tests."""
    user = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(FOREIGN_PREFIXES) or name in FOREIGN_NAMES]:
            patch.delenv(name)
        patch.setenv("HOME", str(user))
        for kind in ("CACHE", "CONFIG", "DATA", "STATE"):
            patch.setenv(f"XDG_{kind}_HOME", str(user / kind.lower()))
        patch.setenv("EPOCHAL_HOME", str(user / "epochal"))
        for name, value in (NO_TELEMETRY | QUIET | NO_GIT_SETTINGS).items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_running(_clean_environment: None) -> Iterator[None]:
    mark = uuid.uuid4().hex
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SESSION_MARK, mark)
        yield
    _, left = psutil.wait_procs(_started_here(mark), timeout=3)
    names = [f"pid {process.pid}: {' '.join(_command(process))[:200]}" for process in left]
    for process in left:
        process.kill()
    if names:
        pytest.fail("tests left processes running (killed now):\n" + "\n".join(names), pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def _no_outside_network() -> Iterator[None]:
    """Connections of the test process stay on this machine; Ray uses the node's own address, so that is allowed."""

    def guarded(name: str) -> Any:
        connect = getattr(socket.socket, name)

        def checked(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_here(address[0]):
                raise AssertionError(f"a test tried to connect to {address}: tests stay on this machine")
            return connect(self, address)

        return checked

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, guarded(name))
        yield


@pytest.fixture(scope="session")
def _homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("homes")
    return (folder / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def epochal_home(request: pytest.FixtureRequest, _homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that Epochal keeps everything in, new for each test. ``tmp_path`` is made for those alone that use it:
    that takes longer than most tests."""
    asked = "tmp_path" in request.fixturenames
    home = Path(request.getfixturevalue("tmp_path"), "epochal") if asked else next(_homes)
    monkeypatch.setenv("EPOCHAL_HOME", str(home))
    return home


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    """Of the libraries that are loaded already: a test of the command line must not load torch for this.

    A single thread of torch, too: models this small are slower on several, which wait for each other in loops.
    """
    random.seed(0)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(0)
    if torch := sys.modules.get("torch"):
        # `torch.manual_seed` keeps a traceback for each kind of accelerator as well: longer than most tests take.
        torch.default_generator.manual_seed(0)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(0)
        torch.set_num_threads(1)


@functools.cache
def _position(path: Path) -> int:
    within = [part.relative_to(TESTS).as_posix() for part in (path, *path.parents) if part.is_relative_to(TESTS)]
    return min((ORDER.index(part) for part in within if part in ORDER), default=len(ORDER))


def _is_here(host: str) -> bool:
    if host in ("", "localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    own = {interface.address for interfaces in psutil.net_if_addrs().values() for interface in interfaces}
    return address.is_loopback or address.is_unspecified or str(address) in own


def _started_here(mark: str) -> set[psutil.Process]:
    """Children down the tree (a forked one has no mark), and whatever carries the mark (an orphan has no parent)."""
    children = set(psutil.Process().children(recursive=True))
    marked = {process for process in psutil.process_iter() if _environment(process).get(SESSION_MARK) == mark}
    return {process for process in children | marked if process.pid != os.getpid() and _outlives(process)}


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _outlives(process: psutil.Process) -> bool:
    command = " ".join(_command(process))
    return not any(name in command for name in ENDS_WITH_ITS_PARENT)
