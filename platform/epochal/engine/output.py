"""A worker's side of its ``relay``: where its output goes from now on."""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import epochal

_PIPE_BYTES = 2**20
_FLUSH_SECONDS = 5.0
_AGAIN_SECONDS = 1.0
_RELAY = "import sys; sys.path.append(sys.argv.pop(1)); from epochal.engine.relay import main; main()"
_ROOT = Path(epochal.__file__).parents[1]


class Output:
    """Everything this process and its children print from now on goes to the file at ``path``, with the values of the
    variables ``secrets`` replaced.

    On the level of file descriptors, so that what C libraries print is caught too.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path, secrets: Sequence[str] = ()) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Where this fails, it fails here: what the relay itself says goes nowhere.
        path.open("ab").close()
        self._source, drain = os.pipe()
        with suppress(AttributeError, OSError):  # Linux; a user has so many larger pipes
            fcntl.fcntl(drain, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        # The source stays open here too: where the relay is killed, what is printed waits for the next one.
        arguments = [str(self._source), str(path), str(os.getpid()), *secrets]
        self._command = [sys.executable, "-I", "-S", "-c", _RELAY, str(_ROOT), *arguments]
        self._start()
        threading.Thread(target=self._keep_up, name="output", daemon=True).start()
        _flush()
        os.dup2(drain, 1)
        os.dup2(drain, 2)
        os.close(drain)
        sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115

    @property
    def pid(self) -> int:
        """Of the relay."""
        return self._relay.pid

    def flush(self) -> None:
        """Wait until what was printed is in the file, but not for ever: its disk may hang."""
        _flush()
        with suppress(OSError, ValueError):
            answered = select.poll()
            answered.register(self._answer, select.POLLIN)
            os.write(self._ask, b".")
            if answered.poll(_FLUSH_SECONDS * 1000):
                os.read(self._answer, 1)

    def _start(self) -> None:
        self._relay = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(self._source,),
            # A signal to the worker's process group leaves the relay the last words.
            start_new_session=True,
        )
        pipes = (self._relay.stdin, self._relay.stdout)
        self._ask, self._answer = (pipe.fileno() for pipe in pipes if pipe is not None)

    def _keep_up(self) -> None:
        while True:
            self._relay.wait()
            time.sleep(_AGAIN_SECONDS)
            # Where the system has no process left, later: who prints would wait for room in the pipe for ever.
            with suppress(OSError):
                self._start()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # the user's code may have put anything there, None too
            stream.flush()
