"""`epochal up` in the home of a test, on ports of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from epochal.local.service_state import MARK, Services, read_services
from epochal.settings import home
from epochal.urls import free_port
from polling import until

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0


class Here:
    """The services of this test's home, on ports of their own."""

    def __init__(self) -> None:
        self.ports = (free_port(), free_port())
        self.folder = home().services

    def epochal(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "epochal.cli.main", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE)

    def up(self, cpus: int = 2, *options: str) -> Services:
        server, mlflow = map(str, self.ports)
        ports = ("--port", server, "--mlflow-port", mlflow)
        came = self.epochal("up", *ports, "--cpus", str(cpus), *options, "-o", "json")
        assert came.returncode == 0, came.stderr
        services = Services.from_json(came.stdout)
        assert services.ready
        return services

    def services(self) -> Services:
        return read_services(self.folder)

    def until(self, condition: Callable[[Services], Any], what: str) -> Services:
        return until(lambda: condition(found := self.services()) and found, what, PATIENCE)

    def job(self, ref: str) -> dict[str, Any]:
        shown = self.epochal("status", ref, "-o", "json")
        assert shown.returncode == 0, shown.stderr
        found: dict[str, Any] = json.loads(shown.stdout)
        return found.get("job", found)

    def processes(self) -> list[str]:
        """Everything that carries the services' mark, or runs out of this home."""
        return [" ".join(command(one)) for one in psutil.process_iter() if self._is_ours(one)]

    def until_gone(self, seconds: float = 30.0) -> None:
        until(lambda: not self.processes(), "every process has ended", seconds)

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return process.environ().get(MARK) == str(self.folder) or str(home().root) in " ".join(command(process))
        except psutil.Error:
            return False


def command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
