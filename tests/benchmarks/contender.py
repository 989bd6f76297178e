"""Starting and stopping what is measured: a clean environment, a folder of its own, stopped by its own handle."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import psutil
import steps

BIN = Path(sys.executable).parent
PEERS = Path(__file__).parent / "peers"
WORKERS = 2
CORES = {"a core free": 1, "no core free": WORKERS}
"""How many workers, of a core each, train on this machine: promises are judged where the platform has one to run on."""
LOOK_SECONDS = 2.0
"""Between two looks at a contender's descendants, which cost some milliseconds of a core."""


class Contender:
    """One program under measurement, in a folder of its own; a context manager that leaves no process behind."""

    def __init__(self, command: Sequence[str | Path], folder: Path, env: Mapping[str, str]) -> None:
        self.command = [str(part) for part in command]
        self.log = folder / "log"
        self.steps = Path(env["BENCHMARK_STEPS"])
        self._output = self.log.open("ab")
        self._family: dict[int, psutil.Process] = {}
        self._looked = 0.0
        self.started = time.time()
        self.process = subprocess.Popen(
            self.command, cwd=folder, env=dict(env), stdin=subprocess.DEVNULL, stdout=self._output, stderr=self._output
        )

    def __enter__(self) -> Contender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            sys.stderr.write(f"--- {' '.join(self.command)}\n{self.tail()}\n")
        self.stop()

    def alive(self) -> bool:
        """Whether it still runs."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._look()
        return self.process.poll() is None

    def _look(self) -> None:
        """Note the descendants, so that `stop` finds those whose parent has gone."""
        self._looked = time.monotonic()
        with suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                self._family[child.pid] = child

    def wait(self, seconds: float = 240) -> None:
        """Until it ends by itself.

        Raises:
            RuntimeError: it failed, or took longer.
        """
        deadline = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > deadline:
                raise RuntimeError(f"still running after {seconds:g} s")
            time.sleep(0.1)
        if self.process.returncode:
            raise RuntimeError(f"exit {self.process.returncode}")

    def train_for(self, seconds: float) -> None:
        """From its first step on, leaving the cores alone.

        Raises:
            RuntimeError: it ended before.
        """
        end = self.started + self.first_step() + seconds
        while (left := end - time.time()) > 0:
            if not self.alive():
                raise RuntimeError(f"ended within {seconds:g} s of its first step")
            time.sleep(min(left, 0.5))

    def first_step(self, since: float | None = None) -> float:
        """Seconds from ``since`` (default: its start) to its first optimizer step, once it was taken."""
        moment = self.started if since is None else since
        step = steps.wait_for("a first step", lambda: steps.first_step_after(self.steps, moment), self.alive)
        return step.at - moment

    def tail(self, lines: int = 30) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> None:
        """End it and everything that it started, asking first."""
        self._look()
        if self.alive():
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(8)
        family = [process for process in self._family.values() if process.is_running()]
        _, left = psutil.wait_procs(family, timeout=3)
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        self.process.kill()
        self.process.wait()
        psutil.wait_procs(left, timeout=5)
        self._output.close()


@contextmanager
def workspace() -> Iterator[tuple[Path, dict[str, str]]]:
    """A temporary folder and an environment that knows nothing of the user's: home, caches and clusters are its own.

    The path is short because Ray puts sockets below it.
    """
    folder = Path(tempfile.mkdtemp(prefix="eb-", dir="/tmp"))
    try:
        yield folder, environment(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def environment(folder: Path) -> dict[str, str]:
    (folder / "steps").mkdir(exist_ok=True)
    return {
        "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "TMPDIR": str(folder),
        "EPOCHAL_HOME": str(folder / "epochal"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(steps.INSTRUMENT),
        "BENCHMARK_STEPS": str(folder / "steps"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GIT_PYTHON_REFRESH": "quiet",
    } | {name: value for name, value in os.environ.items() if name in ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
