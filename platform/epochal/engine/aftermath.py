"""Ends what a private Ray leaves behind where its driver was killed, and removes its folder.

The kernel kills the processes that the driver itself has started, but not theirs: Ray's agent notices the end of its
parent and then waits a minute for a server that is gone too, and a stopped worker notices nothing.

This file is run as a script of its own, on the standard library alone (10 MiB, 20 ms): it waits for the end of its
standard input, which comes when the driver is gone, however it went.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = "EPOCHAL_PRIVATE_RAY"
"""The environment variable that every process of a private Ray inherits."""

_ENDED = b"ended"
"""What a driver says that has ended its Ray itself."""

_WAIT_SECONDS = 10.0
_ROUNDS = 3


@contextmanager
def watch(folder: Path) -> Iterator[dict[str, str]]:
    """Gives the variables that the private Ray's processes have to inherit; ``folder`` is its own."""
    mark = uuid.uuid4().hex
    command = [sys.executable, "-I", "-S", __file__, mark, str(folder)]
    # Without a mark: where this driver runs below another private Ray, the watcher of that one would end this one.
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    # A session of its own: whoever kills the agent's process group (`local.service`) leaves it its work.
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, env=environment) as watcher:
        try:
            yield {MARK: mark}
        finally:
            watcher.communicate(_ENDED, timeout=_WAIT_SECONDS)


def _wait_and_end(mark: str, folder: str) -> None:
    # It has to outlive the driver, also where a shutdown signals everyone at once.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if sys.stdin.buffer.read() == _ENDED:
        return
    for _ in range(_ROUNDS):  # one of them may have started another meanwhile
        for pid in _members(f"{MARK}={mark}".encode(), f"{folder}/"):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def _members(entry: bytes, folder: str) -> Iterator[int]:
    """Linux only; elsewhere Ray's own reaper has to do."""
    proc = Path("/proc")
    for name in os.listdir(proc) if (proc / "self/environ").exists() else ():
        if name.isdigit() and int(name) != os.getpid():
            with suppress(OSError):
                if _is_member(proc / name, entry, folder):
                    yield int(name)


def _is_member(process: Path, entry: bytes, folder: str) -> bool:
    """By its environment, or by its open log files: a process that sets its title writes over its environment."""
    if entry in (process / "environ").read_bytes().split(b"\0"):
        return True
    return any(os.readlink(process / "fd" / name).startswith(folder) for name in os.listdir(process / "fd"))


if __name__ == "__main__":
    _wait_and_end(sys.argv[1], sys.argv[2])
