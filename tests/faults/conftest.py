"""What the fault tests share: a short job whose curve is known, and where MLflow says its run stands."""

from __future__ import annotations

from pathlib import Path

import pytest
from foreground import SHORT_JOB, Curve, Foreground, history
from matrix import HEAD, ROWS

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Curve:
    """The loss curve of the short job left alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        summary = Foreground.start(tmp_path_factory.mktemp("unbroken"), *SHORT_JOB).finish()
    assert summary["exit"] == 0, summary["stderr"]
    return history(summary["tracking_uri"], summary["run_id"])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(ROWS, [])
    if rows:
        terminalreporter.section("fault matrix")
        terminalreporter.write_line(HEAD)
        for row in rows:
            terminalreporter.write_line(str(row))
