"""The commands of sweeps against a real server: what they print, and their exit codes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from restartable_server import PlayedAgent
from test_client_sweeps import SWEEP, told, trial

from epochal.cli.commands import sweep as command
from epochal.client import Client
from epochal.ledger.states import JobState, Reason
from epochal.ledger.values import Job, Lease
from epochal.sweeps.trials import Added, Repeated, TrialState

Run = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.usefixtures("connected")


@pytest.fixture
def run(run: Run) -> Run:
    return lambda *arguments: run("sweep", *arguments)


@pytest.fixture
def lease(client: Client, agent: PlayedAgent) -> Lease:
    """Of a sweep that runs, of which four trials were told."""
    agent.appear()
    lease = agent.lease(client.submit(SWEEP).job.id)
    agent.ledger.running(lease, 1)
    records = [
        trial(0, TrialState.PAUSED, value=0.5),
        trial(1, TrialState.FAILED, reason="OUT_OF_MEMORY", message="rank 0: out of memory\nmore"),
        trial(2, length=9.0, value=0.9, run_id="0123456789abcdef", metrics={"val/loss": 0.25}),
        trial(3, TrialState.RUNNING, length=0.0),
    ]
    agent.ledger.append_inputs(lease, 0, told(4), records)
    return lease


def test_status_has_the_trials_the_best_first(run: Run, lease: Lease) -> None:
    code, out, _ = run("status", lease.job_id)
    facts, _, table = out.partition("\n\n")
    assert code == 0
    assert re.search(r"^trials +2 of 4 done, 1 running, 1 paused, 1 failed$", facts, re.MULTILINE)
    assert re.search(r"^rungs +1: 3, 9: 1 epochs$", facts, re.MULTILINE)
    assert re.search(r"^best +val/accuracy 0\.9 \(trial 2, 9 epochs\)$", facts, re.MULTILINE)
    header, *rows = table.splitlines()
    assert header.split() == ["TRIAL", "STATE", "LENGTH", "VALUE", "LR", "HIDDEN", "RUN", "RAN", "MESSAGE"]
    assert [row.split()[0] for row in rows] == ["2", "0", "1", "3"]
    assert rows[0].split()[1:5] == ["COMPLETED", "9", "0.9", "0.001"]
    assert "01234567 " in rows[0]
    assert "FAILED (OUT_OF_MEMORY)" in rows[2]
    assert "rank 0: out of memory..." in rows[2]


def test_status_as_data(run: Run, lease: Lease) -> None:
    shown = json.loads(run("status", lease.job_id, "-o", "json")[1])
    assert (shown["id"], shown["kind"]) == (lease.job_id, "sweep")
    assert [one["number"] for one in shown["trials"]] == [2, 0, 1, 3]
    assert shown["trials"][0]["metrics"] == {"val/loss": 0.25}
    assert run("status", lease.job_id, "-o", "name")[1].split() == ["2", "0", "1", "3"]
    code, out, err = run("status", lease.job_id, "--limit", "1")
    assert (code, len(out.partition("\n\n")[2].splitlines())) == (0, 2)
    assert "--limit 4" in err


def test_follow_goes_on_until_it_has_ended(
    run: Run, agent: PlayedAgent, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    def sleep(length: float) -> None:
        looks.append(length)
        if len(looks) == 2:
            agent.ledger.append_inputs(lease, 4, told(1), [trial(3, value=0.95)])
        if len(looks) == 3:
            agent.ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED)

    monkeypatch.setattr(command.time, "sleep", sleep)
    code, out, err = run("status", "-f", lease.job_id)
    assert code == 0
    assert err.splitlines()[:2] == [
        "RUNNING: 2 of 4 done, 1 running, 1 paused, 1 failed; best val/accuracy 0.9 (trial 2, 9 epochs)",
        "RUNNING: 3 of 4 done, 1 paused, 1 failed; best val/accuracy 0.95 (trial 3, 1 epochs)",
    ]
    assert re.search(r"^state +SUCCEEDED$", out, re.MULTILINE)
    assert len(looks) == 3


def test_best_is_a_spec_to_submit(run: Run, client: Client, lease: Lease) -> None:
    code, out, _ = run("best", lease.job_id, "-o", "yaml")
    spec = yaml.safe_load(out)
    assert (code, spec["name"], spec["train"]["optimizer"]["lr"]) == (0, "small-sweep-best", 1e-3)
    assert "sweep" not in spec
    assert client.submit(spec).job.state is JobState.QUEUED
    code, out, err = run("best", lease.job_id)
    assert re.search(r"^trial +2$", out, re.MULTILINE)
    assert re.search(r"^model\.params\.hidden +\[32, 32\]$", out, re.MULTILINE)
    assert f"epochal sweep best {lease.job_id} -o yaml" in err


def test_what_is_asked_is_told(run: Run, agent: PlayedAgent, lease: Lease) -> None:
    code, out, err = run("extend", lease.job_id, "--trials", "8")
    assert (code, re.findall(rf"{lease.job_id} +RUNNING", out) != []) == (0, True)
    assert f"epochal sweep status -f {lease.job_id}" in err
    assert run("add", lease.job_id, "-s", "train.optimizer.lr=1e-2", "-s", "model.params.hidden=[64]")[0] == 0
    assert run("repeat", lease.job_id, "--trial", "2", "--times", "3")[0] == 0
    assert run("cancel", lease.job_id, "3")[0] == 0
    _, added, repeated, _ = (one.told for one in agent.ledger.requests(lease.job_id))
    assert added == Added(({"train.optimizer.lr": 0.01, "model.params.hidden": [64]},))
    assert repeated == Repeated(2, 3)


def test_paused_and_extended_it_says_how_it_goes_on(run: Run, lease: Lease, agent: PlayedAgent) -> None:
    assert run("pause", lease.job_id)[0] == 0
    agent.ledger.stopped(lease)
    code, _, err = run("extend", lease.job_id, "--trials", "1")
    assert code == 0
    assert f"epochal resume {lease.job_id}" in err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("cancel", "JOB", "1"), 4, "trial 1 of JOB is over: FAILED"),
        (("cancel", "JOB", "77"), 3, "epochal sweep status JOB"),
        (("add", "JOB", "-s", "train.optimizer.lr"), 2, "expected PATH=VALUE"),
        (("add", "JOB", "-s", "train.optimizer.lr=[1"), 2, "train.optimizer.lr: "),
        (("add", "JOB", "-s", "train.optimizer.rate=1"), 2, "train.optimizer.rate"),
        (("status", "no-such-sweep"), 3, "no job is named 'no-such-sweep'"),
    ],
    ids=["over", "unknown", "no-value", "no-yaml", "no-field", "no-job"],
)
def test_what_cannot_be_is_said(run: Run, lease: Lease, arguments: tuple[str, ...], code: int, said: str) -> None:
    named = [lease.job_id if one == "JOB" else one for one in arguments]
    found, _, err = run(*named)
    assert found == code
    assert said.replace("JOB", lease.job_id) in err


def test_a_training_is_no_sweep(run: Run, submit: Callable[..., Job]) -> None:
    job = submit("name=plain")
    code, _, err = run("status", job.id)
    assert code == 4
    assert f"epochal status {job.id}" in err


def test_report_says_what_was_found(run: Run, lease: Lease, agent: PlayedAgent, tmp_path: Path) -> None:
    again = [trial(number, value=value, curve=((0.5, 0.1), (1.0, value))) for number, value in ((4, 0.8), (5, 0.95))]
    agent.ledger.append_inputs(lease, 4, told(2), again)
    page = tmp_path / "report.html"
    code, out, err = run("report", lease.job_id, "--html", str(page), "-o", "json")
    found = json.loads(out)
    assert code == 0
    assert [one["trial"] for one in found["best"]] == [5, 2, 4, 0]
    assert found["objective"] == "val/accuracy (max)"
    assert found["trials"] == {"RUNNING": 1, "PAUSED": 1, "COMPLETED": 3, "FAILED": 1}
    assert "nothing that was searched differs" in found["importance_of"]
    assert f"written to {page}" in err
    assert page.read_text(encoding="utf-8").count("<svg") == 1, "one point alone was tried: no parallel coordinates"
    code, out, _ = run("report", lease.job_id)
    assert "1 FAILED" in out or "trials.FAILED" in out
    assert run("report", "nothing")[0] == 3
