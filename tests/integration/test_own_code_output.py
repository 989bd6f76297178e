"""What the user's own code prints by other processes, and after the command's output."""

from __future__ import annotations

import json
import subprocess
import sys


def test_standard_output_holds_the_commands_output_alone() -> None:
    """What is printed as it ends, by a child that goes on, and from C's own buffer."""
    script = """
import atexit, ctypes, os, subprocess, sys
from epochal.cli import render
with render.apart():
    subprocess.run(["sh", "-c", "echo said by a child"])
    atexit.register(print, "said at exit")
    atexit.register(os.write, 1, b"said in bytes at exit\\n")
    ctypes.CDLL(None).puts(b"said by C")
    child = subprocess.Popen(["sh", "-c", "read _; echo said by a late child"], stdin=subprocess.PIPE)
    sys.__stdout__.write("said by the first stdout\\n")
    render.document({"name": "own"}, render.Output.JSON)
child.communicate(b"now")
sys.stdout.flush()
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(ended.stdout) == {"name": "own"}
    for by in ("at exit", "in bytes at exit", "by C", "by a child", "by a late child", "by the first stdout"):
        assert f"said {by}\n" in ended.stderr
