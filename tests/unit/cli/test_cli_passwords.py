"""No password on a command line: everybody on the machine reads it there."""

from __future__ import annotations

import pytest

from epochal.cli.main import main

LEDGER = "postgresql://epochal:hunter2@127.0.0.1:9/epochal"


@pytest.mark.parametrize(
    "words",
    [
        ("server", "--ledger", LEDGER),
        ("server", "--ledger", "postgresql://127.0.0.1:9/epochal?password=hunter2"),
        ("server", "--storage", "sftp://epochal:hunter2@127.0.0.1/store"),
        ("server", "--mlflow-uri", "https://epochal:hunter2@mlflow.example"),
        ("db", "upgrade", "--ledger", LEDGER),
        ("login", "https://epochal:hunter2@epochal.example"),
        ("jobs", "--server", "https://epochal:hunter2@epochal.example"),
    ],
)
def test_it_is_refused_and_not_repeated(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(list(words)) == 2
    told = capsys.readouterr().err
    assert "password" in told
    assert "hunter2" not in told


def test_a_variable_may_hold_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("EPOCHAL_LEDGER", LEDGER)
    assert main(["db", "upgrade"]) == 5
    told = capsys.readouterr().err
    assert "cannot use the ledger" in told
    assert "hunter2" not in told
