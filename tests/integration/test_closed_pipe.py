"""The command line in a pipe."""

from __future__ import annotations

import subprocess
import sys

import pytest

from epochal.ledger.ledger import Ledger
from epochal.settings import home

EPOCHAL = [sys.executable, "-c", "import sys; from epochal.cli.main import main; sys.exit(main())"]


def test_a_reader_that_leaves_early_is_no_error() -> None:
    process = subprocess.Popen([*EPOCHAL, "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    told = process.stderr.read()
    process.wait(timeout=60)
    process.stderr.close()
    assert told == ""


ONE = [pytest.param(closed, marks=pytest.mark.slow) for closed in ("<&-", ">&-", "2>&-")]


@pytest.mark.parametrize("closed", [*ONE, "<&- >&- 2>&-"])
def test_a_file_does_not_take_the_place_of_a_stream_that_is_closed(closed: str) -> None:
    """`db upgrade` says something on standard error alone: it must not say it in the ledger."""
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *EPOCHAL, "db", "upgrade"], timeout=60, check=False)
    assert done.returncode == 0
    with Ledger.open(home().served.ledger_url, upgrade=False) as ledger:
        assert ledger.jobs() == []


def test_what_a_command_prints_is_missed(capfd: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *EPOCHAL, "--version"], timeout=60, check=False)
    assert done.returncode == 5
    assert capfd.readouterr().err.startswith("error: standard output: Bad file descriptor\nhint: ")
