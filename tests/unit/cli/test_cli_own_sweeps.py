"""`epochal sweep` on a sweep of `epochal run`, which no server has."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from epochal.cli.main import main
from epochal.errors import UnreachableError
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import JobState, Reason
from epochal.ledger.sweep_values import NewInput, TrialRecord
from epochal.ledger.values import Lease
from epochal.settings import home
from epochal.sweeps.trials import TrialState
from sweep_pieces import LR, sweep_spec

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ledger(epochal_home: Path) -> Iterator[Ledger]:
    """That of `epochal run` in this home."""
    epochal_home.mkdir(parents=True)
    with Ledger.open(home().ledger_url) as opened:
        yield opened


@pytest.fixture
def lease(ledger: Ledger) -> Lease:
    """Of a sweep that runs, of which three trials are done."""
    spec = sweep_spec(mode="min", trials=3)
    job = ledger.submit(spec.model_dump(mode="json"), name=spec.name)
    lease = ledger.lease("run@elsewhere/1/1", 60.0, job.id)
    assert lease is not None
    ledger.running(lease, 1)
    trials = [
        TrialRecord(number, {LR: 0.1 * (number + 1)}, TrialState.COMPLETED, 9.0, value=value)
        for number, value in enumerate((0.5, 0.25, 0.75))
    ]
    told = [NewInput({"kind": "reached", "trial": one.number, "length": 9.0, "value": one.value}) for one in trials]
    ledger.append_inputs(lease, 0, told, trials)
    return lease


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def called(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["sweep", *arguments])
        told = capsys.readouterr()
        return code, told.out, told.err

    return called


def test_it_is_shown_without_a_server(run: Run, lease: Lease) -> None:
    code, out, err = run("status", "sweep")
    assert code == 0
    assert re.search(r"^trials +3 of 3 done$", out, re.MULTILINE)
    assert [row.split()[0] for row in out.partition("\n\n")[2].splitlines()[1:]] == ["1", "0", "2"]
    assert "sweep is of `epochal run`" in err
    assert json.loads(run("report", lease.job_id, "-o", "json")[1])["best"][0]["trial"] == 1
    best = yaml.safe_load(run("best", lease.job_id[:12], "-o", "yaml")[1])
    assert (best["name"], best["train"]["optimizer"]["lr"]) == ("sweep-best", 0.2)


def test_while_it_runs_it_hears_what_is_asked(run: Run, ledger: Ledger, lease: Lease) -> None:
    code, _, err = run("extend", lease.job_id, "--trials", "4")
    assert (code, f"epochal sweep status -f {lease.job_id}" in err) == (0, True)
    assert run("add", lease.job_id, "-s", f"{LR}=0.5")[0] == 0
    code, _, err = run("add", lease.job_id, "-s", "train.optimizer.rate=1")
    assert (code, "train.optimizer.rate" in err) == (2, True)
    assert [one.body["kind"] for one in ledger.requests(lease.job_id)] == ["extend", "add"]


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.PAUSED])
def test_one_that_does_not_run_says_what_has_it_go_on(run: Run, ledger: Ledger, lease: Lease, state: JobState) -> None:
    if state is JobState.PAUSED:
        ledger.request_pause(lease.job_id)
        ledger.stopped(lease)
    else:
        ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED)
    code, _, err = run("extend", lease.job_id, "--trials", "1")
    assert (code, f"epochal run --resume {lease.job_id}" in err) == (0, True)
    assert ledger.job(lease.job_id).state is (JobState.PAUSED if state is JobState.PAUSED else JobState.QUEUED)
    code, _, err = run("status", "--follow", lease.job_id)
    assert (code, f"epochal run --resume {lease.job_id}" in err) == (1, True)


def test_a_name_that_nobody_has_is_said_as_before(run: Run, lease: Lease, ledger: Ledger) -> None:
    code, _, err = run("status", "nothing")
    assert (code, "no server is known" in err) == (UnreachableError.exit_code, True)
    training = ledger.submit({**sweep_spec().model_dump(mode="json"), "sweep": None}, name="plain")
    assert "no server is known" in run("status", training.id)[2]
    code, _, err = run("status", "--server", "http://127.0.0.1:9", lease.job_id)
    assert (code, "http://127.0.0.1:9" in err) == (UnreachableError.exit_code, True)
