"""What the fault tests share: a short job whose curve is known, and where MLflow says its run stands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from foreground import SHORT, Curve
from matrix import HEAD, ROWS
from served import slow_job_unbroken
from swept import Trainings

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Curve:
    """The loss curve of the short job left alone."""
    return slow_job_unbroken(tmp_path_factory.mktemp("unbroken"), *SHORT)


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    with Trainings(tmp_path_factory.mktemp("trainings")) as trainings:
        yield trainings


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(ROWS, [])
    if rows:
        terminalreporter.section("fault matrix")
        terminalreporter.write_line(HEAD)
        for row in rows:
            terminalreporter.write_line(str(row))
