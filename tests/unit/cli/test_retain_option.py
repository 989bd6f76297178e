from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from epochal.cli.dispatch import run
from epochal.cli.options import retain_option
from epochal.cli.options import retention as retention_of
from epochal.settings import DEFAULT_RETENTION, Retention


def test_kinds_have_ages_and_the_rest_its_default() -> None:
    assert retention_of(()) == DEFAULT_RETENTION
    assert retention_of(("logs=7d", "checkpoints=forever")) == Retention(checkpoints=None, logs=7 * 86_400)


@pytest.mark.parametrize("given", ["logs", "logs=7", "log=7d", "=7d"])
def test_what_is_no_age_is_refused(given: str) -> None:
    with pytest.raises(click.BadParameter, match="expected"):
        retention_of((given,))


def test_a_job_is_known_as_long_as_anything_of_it_is_kept() -> None:
    assert retention_of(("jobs=1d", "logs=2d")).jobs_at_least == 90 * 86_400
    assert retention_of(("jobs=1000d",)).jobs_at_least == 1000 * 86_400
    assert retention_of(("checkpoints=forever",)).jobs_at_least is None


@pytest.mark.parametrize("kind", ["events", "jobs"])
def test_an_agent_refuses_the_age_of_what_it_does_not_keep(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["agent", "--server", "http://127.0.0.1:9", "--retain", "logs=7d", "--retain", f"{kind}=7d"]) == 2
    told = capsys.readouterr().err
    assert f"'{kind}=7d'" in told
    assert "checkpoints, spools, logs and code" in told


def test_a_variable_that_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody has typed an option."""
    monkeypatch.setenv("EPOCHAL_RETAIN", "log=7d")
    assert run(["db", "prune"]) == 2
    assert "EPOCHAL_RETAIN: 'log=7d': expected one of" in capsys.readouterr().err


def test_the_variable_names_kinds_of_any_command() -> None:
    """``epochal up`` hands it to a server and to an agent."""
    seen: list[Retention] = []

    @click.command()
    @retain_option("checkpoints", "spools", "logs", "code")
    def agent(retention: Retention) -> None:
        seen.append(retention)

    assert CliRunner().invoke(agent, env={"EPOCHAL_RETAIN": "events=7d logs=1d"}).exit_code == 0
    assert seen == [Retention(logs=86_400, events=7 * 86_400)]
