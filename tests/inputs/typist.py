"""Commands as people type them, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from polling import until

EPOCHAL = [sys.executable, "-m", "epochal.cli.main"]
SECONDS = 600


@dataclass(frozen=True)
class Typist:
    """Types commands in a ``folder``, with an empty home."""

    folder: Path
    home: Path
    environ: dict[str, str] = field(default_factory=dict)

    def epochal(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([*EPOCHAL, *words], timeout=SECONDS, check=False, **self._how(environ))
        print("$ epochal", *words, f"-> {done.returncode}\n{done.stdout[:2000]}{done.stderr[-2000:]}")
        assert "Traceback" not in done.stdout + done.stderr
        return done

    def python(self, script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", script], timeout=SECONDS, check=False, **self._how({}))

    def started(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen([*EPOCHAL, *words], **self._how({}))

    def run(self, *words: str, **environ: str) -> dict[str, Any]:
        """The summary of `epochal run job.yaml`, with its exit code and what it said."""
        done = self.epochal("run", "job.yaml", "-q", "-o", "json", *words, **environ)
        summary = json.loads(done.stdout) if done.stdout else {}
        return {**summary, "code": done.returncode, "said": done.stderr}

    def job(self, ref: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.epochal("status", ref, "-o", "json").stdout)
        return found

    def until(self, ref: str, *states: str) -> dict[str, Any]:
        """The job, once it is in one of the ``states``."""
        found: dict[str, Any] = until(
            lambda: (job := self.job(ref))["state"] in states and job, f"{ref} is one of {states}", SECONDS
        )
        return found

    def left(self, text: str) -> list[Path]:
        """Files of the home that hold ``text``."""
        files = (path for path in self.home.rglob("*") if path.is_file() and not path.is_symlink())
        return [path for path in files if text.encode() in path.read_bytes()]

    def _how(self, environ: dict[str, str]) -> dict[str, Any]:
        variables = {**os.environ, "EPOCHAL_HOME": str(self.home), **self.environ, **environ}
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return {"cwd": self.folder, "env": variables, "text": True, "errors": "backslashreplace", **pipes}
