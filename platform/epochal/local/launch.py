"""Becomes the command that it is given, which the kernel then tells to end (SIGTERM) when the supervisor is gone.

A script of its own on the standard library alone (20 ms): asking the kernel between fork and exec, as
``subprocess``'s ``preexec_fn`` would, runs Python in a half-copied process. Linux only; elsewhere a supervisor that is
killed leaves its services to the next ``epochal up``, which ends them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def _become(parent: int, command: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it was gone before the kernel knew whom to tell
            sys.exit(128 + signal.SIGTERM)
    os.execvp(command[0], command)


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
