"""This process as the system sees it: its title, output, parent, threads' priority, memory, network interface."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from epochal.engine import relay
from epochal.settings import CREDENTIALS
from epochal.urls import without_password

_PR_SET_PDEATHSIG = 1

taken = threading.Event()
"""Set once a gang has this process: what was being prepared in it makes way."""

warming_up = threading.Lock()
"""Held by the warm-up. A training, which needs most of it anyway, waits for it: both change the whole process."""


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent (the raylet) is gone, whatever this process is stuck in.

    Ray's own check runs in this process and so does not reach one that is stopped. Linux only; elsewhere Ray's check
    has to do.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def heed_children() -> None:
    """Undo that Ray has the kernel forget ended children, in this process and in those it starts.

    Otherwise every exit code that ``subprocess`` reports is 0. In C, because Python allows it in the main thread alone.
    """
    if sys.platform != "win32":
        ctypes.CDLL(None).signal(int(signal.SIGCHLD), int(signal.SIG_DFL))


def withhold_credentials() -> dict[str, str]:
    """Take out of this process's environment what lets it in elsewhere; gives what it was, to be put back."""
    found = {name: os.environ.pop(name) for name in CREDENTIALS if name in os.environ}
    if (uri := os.environ.get("MLFLOW_TRACKING_URI")) is not None:
        os.environ["MLFLOW_TRACKING_URI"] = without_password(uri)
        found["MLFLOW_TRACKING_URI"] = uri
    return found


def lower_priority() -> None:
    """Let this *thread*, and those it starts, run only where nobody else wants to.

    A process that lowers its priority cannot raise it again; on Linux a thread's is its own, and ends with it.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def restore_priority() -> None:
    """Undo ``lower_priority`` for threads that outlive the one that started them, where that is allowed."""
    if sys.platform == "linux":
        usual = os.getpriority(os.PRIO_PROCESS, os.getpid())  # the main thread's
        for thread in os.listdir("/proc/self/task"):
            with suppress(OSError):
                if os.getpriority(os.PRIO_PROCESS, int(thread)) > usual:
                    os.setpriority(os.PRIO_PROCESS, int(thread), usual)


@contextmanager
def made_to_stay() -> Iterator[None]:
    """Within the ``with`` block no garbage is collected, and what is there at its end never will be: for imports.

    A training imports 430,000 objects that stay. A full collection looks at all of them, 0.16 s each time, and comes
    before the first step; switched on, it makes the import itself a quarter longer.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def interface_of(address: str) -> str | None:
    """The network interface that owns the IP ``address``; None where none does."""
    for name, addresses in psutil.net_if_addrs().items():
        for one in addresses:
            if one.family in (socket.AF_INET, socket.AF_INET6) and one.address.split("%")[0] == address:
                return name
    return None


def connect_from(address: str) -> None:
    """Have Gloo and NCCL use the interface of that address, where this node's variables name no other. They pick
    loopback where the host name resolves to it, and other nodes then cannot connect."""
    if (interface := interface_of(address)) is not None:
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(name, interface)


def created(process: psutil.Process) -> float:
    """When it started, in seconds since the system did: unlike the time of day, nobody who sets the clock moves it."""
    return round(process.create_time() - psutil.boot_time(), 2)  # the kernel counts in hundredths


def kill_tree(pid: int, started: float) -> bool:
    """SIGKILL the process and all below it; False where it is gone already, or its number is another process's now.

    Not what relays its output, which ends with it and has its last words.
    """
    try:
        process = psutil.Process(pid)
        if created(process) != started:
            return False
        family = [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return False
    for member in family:
        with suppress(psutil.Error):  # gone; or another user's, as what the job's code starts by `sudo`: the rest ends
            if member.name() != relay.NAME:
                member.kill()
    return True


def await_end(processes: Iterable[tuple[int, float]], seconds: float) -> None:
    """Wait, up to ``seconds``, until none of them is there; each is its id and when it started."""
    left, deadline = list(processes), time.monotonic() + seconds
    while any(is_alive(*one) for one in left) and time.monotonic() < deadline:
        time.sleep(0.005)


def end(processes: Sequence[tuple[int, float]], seconds: float) -> None:
    """``kill_tree`` of the first, and wait until neither it nor the others, which end with it, are there."""
    kill_tree(*processes[0])
    await_end(processes, seconds)


def is_alive(pid: int, started: float) -> bool:
    """Whether that very process is there and no zombie."""
    try:
        process = psutil.Process(pid)
        return created(process) == started and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def killed_for_memory() -> int:
    """How many processes the system has killed for want of memory: in this control group, else on the machine."""
    for path in _oom_counters():
        with suppress(OSError):
            for line in path.read_text().splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill" and count.isdigit():
                    return int(count)
    return 0


def _oom_counters() -> Iterator[Path]:
    root = Path("/sys/fs/cgroup")
    groups = Path("/proc/self/cgroup")
    for line in groups.read_text().splitlines() if groups.exists() else ():
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            yield root / path.lstrip("/") / "memory.events"
        elif "memory" in controllers.split(","):
            yield root / "memory" / path.lstrip("/") / "memory.oom_control"
    yield root / "memory.events"  # in a container, which sees its own group as the root
    yield Path("/proc/vmstat")
