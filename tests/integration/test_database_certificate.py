"""A PostgreSQL whose certificate is checked, by the variable that the chart's `database.caSecret` sets."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from postgres import Postgres, binaries

PROGRAMS = binaries()

pytestmark = [
    pytest.mark.skipif(PROGRAMS is None, reason="needs PostgreSQL's programs"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl"),
]


def authority(folder: Path, name: str) -> Path:
    """Its certificate."""
    subject = ("-subj", f"/CN={name}", "-days", "2", "-nodes", "-newkey", "rsa:2048")
    files = ("-keyout", f"{name}.key", "-out", f"{name}.crt")
    subprocess.run(["openssl", "req", "-x509", *subject, *files], cwd=folder, check=True, capture_output=True)
    return folder / f"{name}.crt"


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Of a database whose certificate is `ours`'s, made out to `localhost`."""
    authority(tmp_path, "ours")
    asked = ("openssl", "req", "-subj", "/CN=localhost", "-nodes", "-newkey", "rsa:2048")
    subprocess.run([*asked, "-keyout", "own.key", "-out", "own.csr"], cwd=tmp_path, check=True, capture_output=True)
    signing = ("openssl", "x509", "-req", "-in", "own.csr", "-CA", "ours.crt", "-CAkey", "ours.key", "-CAcreateserial")
    subprocess.run([*signing, "-out", "own.crt", "-days", "2"], cwd=tmp_path, check=True, capture_output=True)
    assert PROGRAMS is not None
    with Postgres(PROGRAMS, (tmp_path / "own.crt", tmp_path / "own.key")) as running:
        yield f"postgresql://epochal@localhost:{running.port}/postgres?sslmode=verify-full"


def test_the_ledger_believes_the_authority_that_it_is_given_and_no_other(tmp_path: Path, url: str) -> None:
    def upgraded(certificate: Path) -> subprocess.CompletedProcess[str]:
        variables = {**os.environ, "EPOCHAL_LEDGER": url, "PGSSLROOTCERT": str(certificate)}
        command = [sys.executable, "-m", "epochal.cli.main", "db", "upgrade"]
        return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)

    refused = upgraded(authority(tmp_path, "another"))
    assert refused.returncode == 5, refused.stderr
    assert "certificate verify failed" in refused.stderr
    done = upgraded(tmp_path / "ours.crt")
    assert done.returncode == 0, done.stderr
