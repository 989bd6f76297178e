"""A private PostgreSQL in a temporary folder, reached through a socket in that folder, with TLS also by `localhost`."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

from epochal.urls import free_port

NOBODY = "nobody"
READY_SECONDS = 30.0


def binaries() -> Path | None:
    """The folder of initdb and postgres; None where PostgreSQL is not installed."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    on_path = shutil.which("initdb")
    found = Path(on_path).resolve() if on_path else next(iter(installed), None)
    return found.parent if found else None


class Postgres:
    """One cluster. PostgreSQL refuses to run as root, so root runs it as nobody. ``tls``: its certificate and key."""

    def __init__(self, programs: Path, tls: tuple[Path, Path] | None = None) -> None:
        self.port = 5432 if tls is None else free_port()
        self._tls = tls
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # socket paths must be short
        self._user = NOBODY if os.geteuid() == 0 else None
        self._server: subprocess.Popen[bytes] | None = None
        self._schemas = 0

    def __enter__(self) -> Self:
        for file in self._tls or ():
            own = Path(shutil.copy(file, self._folder))
            own.chmod(0o600)
            if self._user:
                shutil.chown(own, self._user)
        if self._user:
            shutil.chown(self._folder, self._user)
        self._run("initdb", "--auth=trust", "--username=epochal", "--encoding=UTF8", "--no-sync", self._data)
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def start(self) -> None:
        command = [self._programs / "postgres", "-D", self._data, "-k", self._folder, "-p", str(self.port)]
        command += ["-c", f"listen_addresses={'localhost' if self._tls else ''}"]
        for name, file in zip(("ssl_cert_file", "ssl_key_file"), self._tls or (), strict=False):
            command += ["-c", "ssl=on", "-c", f"{name}={self._folder / file.name}"]
        self._server = subprocess.Popen(
            [*command, "-c", "fsync=off", "-c", "max_connections=200"],
            user=self._user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
        )  # fmt: skip
        self._wait_until_ready()

    def stop(self) -> None:
        """Fast shutdown: SIGINT ends the sessions and the server."""
        if self._server:
            self._server.send_signal(2)
            self._server.wait(READY_SECONDS)
            self._server = None

    def kill(self) -> None:
        """End every process of the server at once, as a crash of the machine would."""
        if self._server:
            family = [psutil.Process(self._server.pid), *psutil.Process(self._server.pid).children(recursive=True)]
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self._server.wait(READY_SECONDS)
            psutil.wait_procs(family, timeout=READY_SECONDS)
            self._server = None

    def new_url(self) -> str:
        """The URL of an empty schema of its own."""
        import psycopg

        self._schemas += 1
        schema = f"s{self._schemas}"
        with psycopg.connect(self._conninfo, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {schema}".encode())
        return f"postgresql://epochal@/postgres?host={self._folder}&options=-csearch_path%3D{schema}"

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    @property
    def _conninfo(self) -> str:
        return f"host={self._folder} port={self.port} user=epochal dbname=postgres"

    def _run(self, program: str, *arguments: str | Path) -> None:
        command = [self._programs / program, *arguments]
        subprocess.run(command, user=self._user, check=True, capture_output=True, cwd="/")

    def _wait_until_ready(self) -> None:
        import psycopg

        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                psycopg.connect(self._conninfo).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
