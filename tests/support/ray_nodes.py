"""Ray nodes as an administrator starts them, by `ray start`, each in a network namespace of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from epochal.engine.ray_variables import SHARED
from namespaces import Namespace

PORT = 6379
_START_SECONDS = 150.0


@contextmanager
def ray_home() -> Iterator[Path]:
    """A folder for the nodes' files, with the cluster's ``token``. Short, because Ray's sockets lie below it."""
    folder = Path(tempfile.mkdtemp(prefix="ep-", dir="/tmp"))
    (folder / "token").write_text(uuid.uuid4().hex * 2)
    (folder / "token").chmod(0o600)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def environment(home: Path, **more: str) -> dict[str, str]:
    """Of the nodes, and of whoever joins them."""
    return {**os.environ, **variables(home), **more}


def variables(home: Path) -> dict[str, str]:
    """What of the environment is the cluster's: what Epochal's own manifests give it, too."""
    return {
        **SHARED,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(home / "token"),
        "RAY_raylet_start_wait_time_s": "90",
        "HOME": str(home),
    }


@contextmanager
def ray_node(space: Namespace, head: Namespace, home: Path, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A node with one CPU, until the end of the ``with`` block; ``more`` is added to its environment."""
    where = (
        ["--head", f"--port={PORT}", "--include-dashboard=false"]
        if space == head
        else [f"--address={head.address}:{PORT}"]
    )
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--node-ip-address={space.address}"]
    settings = ["--num-cpus=1", "--disable-usage-stats", f"--temp-dir={home / space.name}"]
    with open(home / f"{space.name}.log", "wb") as log:
        node = subprocess.Popen(
            space.command(*command, *where, *settings),
            stdout=log,
            stderr=log,
            env=environment(home, **more),
            start_new_session=True,
        )
    try:
        _await_start(node, home / f"{space.name}.log")
        yield node
    finally:
        _end(node)


def kill(node: subprocess.Popen[bytes]) -> None:
    """SIGKILL to everything that runs on the node, as when its power goes."""
    for process in _family(node):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    node.wait(10)


def _await_start(node: subprocess.Popen[bytes], log: Path) -> None:
    """One after the other: two at once time out on two cores."""
    deadline = time.monotonic() + _START_SECONDS
    while b"Ray runtime started" not in log.read_bytes():
        assert node.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def _end(node: subprocess.Popen[bytes]) -> None:
    family = _family(node)
    node.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        node.wait(10)
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    node.wait(10)


def _family(node: subprocess.Popen[bytes]) -> list[psutil.Process]:
    if node.poll() is not None:
        return []
    parent = psutil.Process(node.pid)
    return [parent, *parent.children(recursive=True)]
