"""A process's output, with what it relays to its log: without secrets, and to the last word."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import epochal
from polling import until

WORKER = """
import os, signal, subprocess, sys, time
from pathlib import Path
from epochal.engine import output
output._AGAIN_SECONDS = 0.01
output = output.Output(Path(sys.argv[1]), ["MY_SECRET", "MY_PIN"])
secret = os.environ["MY_SECRET"]
"""
ENDS = {
    "returns": "print('last words'); sys.exit()",
    "exits": "print('last words', end='', flush=True); os._exit(3)",
    "is killed": "os.write(2, b'last words'); os.kill(os.getpid(), signal.SIGKILL)",
    "crashes": "os.write(2, b'last words'); os.abort()",
    "leaves a child": "subprocess.Popen(['sleep', '1']); os.write(1, b'last words'); os._exit(0)",
    "flushes": "print('last words'); output.flush(); print(Path(sys.argv[1]).read_text().count('last'))",
    "has lost its streams": "print('last words'); sys.stdout = sys.stderr = None; output.flush(); os._exit(0)",
    "has streams of its own": "print('last words'); sys.stdout = sys.stderr = object(); output.flush(); os._exit(0)",
    "loses its relay": "pid = output.pid; os.kill(pid, 9); print('last words')\nwhile output.pid == pid: pass",
}


def worker(path: Path, code: str) -> str:
    mine = {"MY_SECRET": "hunter2-hunter2", "MY_PIN": "12", "PYTHONPATH": str(Path(epochal.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "-c", WORKER + code, str(path)], env={**os.environ, **mine})
    process.wait(20)
    return settled(path)


def settled(path: Path) -> str:
    """What is in the file once nobody writes to it: its relay has ended."""
    mine = f"\0{path}\0".encode()
    until(lambda: not any(mine in _command(name) for name in os.listdir("/proc") if name.isdigit()), "its relay ends")
    return path.read_text(errors="replace")


def _command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("how", ENDS)
def test_the_last_words_are_kept_however_a_worker_ends(how: str, tmp_path: Path) -> None:
    path = tmp_path / "logs" / "it's a log.log"
    text = worker(path, ENDS[how])
    said, rest = text.split("\n", 1)
    assert said == "secrets: MY_PIN: what is shorter than 4 characters is not replaced in this log"
    assert rest.removesuffix("1\n" if how == "flushes" else "").rstrip("\n").endswith("last words")


PRINTS = {
    "print": "print('is', secret)",
    "two writes": "os.write(1, b'is hunter2-'); time.sleep(0.05); os.write(1, b'hunter2\\n')",
    "two streams": "os.write(1, b'is hunter2-'); os.write(2, b'hunter2\\n')",
    "a child": "subprocess.run('echo is $MY_SECRET', shell=True)",
    "a child in a session": "subprocess.run(['sh', '-c', 'echo is $MY_SECRET'], start_new_session=True)",
    "a traceback": "raise RuntimeError('is ' + secret)",
    "a bar": "[os.write(2, f'\\ris {secret} {n:5}'.encode()) for n in range(3000)]; os.write(2, b'\\n')",
    "a line of 5 MB": "print('is', 'L' * 5_000_000 + secret)",
    "binary": "os.write(1, bytes(range(256)) + b'is hunter2-hunter2\\xe2\\x82\\n')",
    "a dying word": "os.write(1, b'is hunter2-hunt'); os.kill(os.getpid(), signal.SIGKILL)",
    "the environment": "subprocess.run('env')",
}


@pytest.mark.parametrize("how", PRINTS)
def test_no_secret_is_printed(how: str, tmp_path: Path) -> None:
    printed = worker(tmp_path / "log", PRINTS[how])
    assert "***" in printed
    assert "hunt" not in printed
