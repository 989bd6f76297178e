"""Sweeps over a real server: an agent tells of one, its user looks at it and asks for more."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from restartable_server import SPEC, PlayedAgent, RestartableServer

from epochal.client import Client, remote_ledger
from epochal.client.http import Http, Request
from epochal.errors import ConflictError, ForbiddenError, NotFoundError, SpecError, StaleLeaseError, UsageError
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import JobKind, JobState, Reason
from epochal.ledger.sweep_values import NewInput, TrialRecord
from epochal.ledger.values import Job, Lease
from epochal.sweeps.trials import Extended, TrialState

SWEEP: dict[str, Any] = {
    **SPEC,
    "name": "small-sweep",
    "objective": {"metric": "val/accuracy", "mode": "max"},
    "sweep": {
        "search": {"name": "random"},
        "trials": 4,
        "space": {
            "train.optimizer.lr": {"dist": "loguniform", "low": 1e-4, "high": 1e-1},
            "model.params.hidden": {"choice": [[16], [32, 32]]},
        },
    },
}
POINT = {"train.optimizer.lr": 1e-3, "model.params.hidden": [32, 32]}
Sweep = Callable[[], Job]


def trial(number: int, state: TrialState = TrialState.COMPLETED, **fields: Any) -> TrialRecord:
    return TrialRecord(number, POINT, state, **{"length": 1.0, **fields})


def told(count: int) -> list[NewInput]:
    return [NewInput({"kind": "reached", "trial": number, "value": 0.5}) for number in range(count)]


@pytest.fixture
def sweep(client: Client) -> Job:
    return client.submit(SWEEP).job


@pytest.fixture
def lease(agent: PlayedAgent, sweep: Job) -> Lease:
    agent.appear()
    lease = agent.lease(sweep.id)
    agent.ledger.running(lease, 1)
    return lease


def test_a_sweep_is_submitted_as_any_job(client: Client, sweep: Job) -> None:
    assert (sweep.kind, sweep.state) == (JobKind.SWEEP, JobState.QUEUED)
    assert client.trials(sweep.id) == []
    with pytest.raises(SpecError, match="needs an objective"):
        client.submit({**SWEEP, "objective": None})


def test_what_its_agent_tells_is_what_its_user_sees(client: Client, agent: PlayedAgent, lease: Lease) -> None:
    records = [
        trial(0, value=0.5, metrics={"val/accuracy": 0.5, "val/loss": math.inf}, run_id="r0"),
        trial(1, value=math.nan),
        trial(2, TrialState.FAILED, value=0.99, reason="OUT_OF_MEMORY", message="x" * 30_000),
        trial(3, TrialState.RUNNING, value=0.75),
    ]
    assert agent.ledger.append_inputs(lease, 0, told(4), records) == 4
    assert agent.ledger.append_inputs(lease, 0, told(4), records) == 4
    found = client.trials(lease.job_id)
    assert [(one.number, repr(one.value), one.state) for one in found] == [
        (0, "0.5", "COMPLETED"),
        (1, "nan", "COMPLETED"),
        (2, "0.99", "FAILED"),
        (3, "0.75", "RUNNING"),
    ]
    assert (found[0].metrics["val/loss"], found[0].point, found[0].run_id) == (math.inf, POINT, "r0")
    assert [one.number for one in client.trials(lease.job_id, [TrialState.FAILED])] == [2]
    assert "10100 characters left out" in found[2].message
    assert [one.body["trial"] for one in agent.ledger.inputs(lease.job_id)] == [0, 1, 2, 3]
    assert client.best_trial(lease.job_id).number == 0, "the third has not trained to its full length"


def test_many_are_told_and_read_part_by_part(
    client: Client, agent: PlayedAgent, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [trial(number) for number in range(1001)]
    assert agent.ledger.append_inputs(lease, 0, told(1001), records) == 1001
    assert len(client.trials(lease.job_id)) == len(agent.ledger.inputs(lease.job_id)) == 1001
    assert agent.ledger.append_inputs(lease, 0, told(1001), records) == 1001
    monkeypatch.setattr(remote_ledger, "_BATCH", 1001)
    with pytest.raises(UsageError, match="at most 1000 items"):
        agent.ledger.append_inputs(lease, 1001, told(1001), records)


def test_long_curves_are_told_in_smaller_parts(client: Client, agent: PlayedAgent, lease: Lease) -> None:
    curve = tuple((float(length), 0.5) for length in range(1, 9_001))
    agent.ledger.append_inputs(lease, 0, told(1), [trial(number, curve=curve) for number in range(5)])
    found = client.trials(lease.job_id)
    assert [(one.number, one.curve == curve) for one in found] == [(number, True) for number in range(5)]


def test_many_metrics_are_told_in_smaller_parts(client: Client, agent: PlayedAgent, lease: Lease) -> None:
    """Of a thousand trials that ended while the server was away, each with a metric for each of a hundred classes."""
    metrics = {f"val/accuracy_of_class_{number:03}": 0.123456789 for number in range(150)}
    inputs = [NewInput({**one.body, "metrics": metrics}, one.key) for one in told(1000)]
    assert (
        agent.ledger.append_inputs(lease, 0, inputs, [trial(number, metrics=metrics) for number in range(1000)]) == 1000
    )
    assert client.trials(lease.job_id)[-1].metrics == metrics
    assert len(agent.ledger.inputs(lease.job_id)) == 1000


def test_runs_of_trials_are_told_once_the_sweep_is_over(client: Client, agent: PlayedAgent, lease: Lease) -> None:
    agent.ledger.append_inputs(lease, 0, told(1001), [trial(number) for number in range(1001)])
    agent.ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED)
    agent.ledger.set_trial_runs(lease, {number: f"run-{number}" for number in range(1001)})
    assert [one.run_id for one in client.trials(lease.job_id)] == [f"run-{number}" for number in range(1001)]


def test_who_has_not_the_lease_tells_nothing(server: RestartableServer, agent: PlayedAgent, lease: Lease) -> None:
    again = agent.ledger.lease_again(lease, 30.0, Reason.INFRASTRUCTURE)
    assert again is not None
    with pytest.raises(StaleLeaseError):
        agent.ledger.append_inputs(lease, 0, told(1))
    http = Http(server.url, server.token)
    path = f"/leases/{lease.job_id}/2/inputs"
    with pytest.raises(ConflictError, match="another's"):
        http.json(Request("POST", path, headers={"Lease-Secret": "guessed"}, body={"after": 0}))
    http.close()


def test_what_is_asked_reaches_the_agent(client: Client, agent: PlayedAgent, lease: Lease) -> None:
    agent.ledger.append_inputs(lease, 0, told(1), [trial(0, TrialState.RUNNING)])
    assert client.extend(lease.job_id, 8, key="more").state is JobState.RUNNING
    client.extend(lease.job_id, 8, key="more")
    client.add(lease.job_id, [{"train.optimizer.lr": 1e-2}])
    client.repeat(lease.job_id, 0, 3)
    client.cancel(lease.job_id, 0)
    assert agent.ledger.renew(lease, 30.0).requested == 4
    first, *others = agent.ledger.requests(lease.job_id)
    assert (first.key, first.told, len(others)) == ("more", Extended(8), 3)
    assert agent.ledger.requests(lease.job_id, after=3) == others[-1:]


@pytest.mark.parametrize(
    ("point", "path", "message"),
    [
        ({"train.optimiser.lr": 1}, "train.optimiser", "no such field"),
        ({"train.optimizer.lr": "fast"}, "train.optimizer.lr", "number"),
        ({"model.params.hiden": [16]}, "model.params.hiden", "unknown"),
        ({"resources.workers": 2}, "resources.workers", "cannot differ"),
    ],
    ids=["path", "value", "parameter", "section"],
)
def test_points_that_do_not_fit_are_refused(
    client: Client, sweep: Job, point: dict[str, Any], path: str, message: str
) -> None:
    with pytest.raises(SpecError) as caught:
        client.add(sweep.id, [POINT, point])
    (problem,) = caught.value.problems
    assert problem.path == path
    assert message in f"{problem.message} {problem.hint}"
    assert client.job(sweep.id).to_dict()["state"] == "QUEUED"


def test_points_that_meet_no_condition_are_refused(client: Client) -> None:
    space = {
        "train.optimizer.name": {"choice": ["adamw", "sgd"]},
        "train.optimizer.momentum": {
            "dist": "uniform",
            "low": 0,
            "high": 0.9,
            "when": {"train.optimizer.name": ["sgd"]},
        },
    }
    job = client.submit({**SWEEP, "sweep": {"trials": 4, "space": space}}).job
    with pytest.raises(SpecError) as caught:
        client.add(job.id, [{"train.optimizer.momentum": 0.5}])
    assert [problem.path for problem in caught.value.problems] == ["train.optimizer.momentum"]
    assert "only where train.optimizer.name is sgd" in caught.value.problems[0].message
    client.add(job.id, [{"train.optimizer.momentum": 0.5, "train.optimizer.name": "sgd"}])


def test_only_its_owner_asks_for_more(server: RestartableServer, sweep: Job) -> None:
    with Ledger.open(server.ledger_url) as ledger:
        secret = ledger.create_token("grace", "user")[1]
    with server.client(secret) as other:
        assert other.trials(sweep.id) == []
        with pytest.raises(ForbiddenError):
            other.extend(sweep.id, 1)


def test_one_that_has_ended_is_queued_again(client: Client, agent: PlayedAgent, lease: Lease) -> None:
    agent.ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED)
    with pytest.raises(NotFoundError, match="trial"):
        client.cancel(lease.job_id, 0)
    assert client.extend(lease.job_id, 1).state is JobState.QUEUED
    assert agent.lease(lease.job_id).epoch == 2


def test_the_best_point_is_a_job_of_its_own(client: Client, agent: PlayedAgent, lease: Lease) -> None:
    with pytest.raises(ConflictError, match="has no best trial yet: none has begun"):
        client.best_spec(lease.job_id)
    agent.ledger.append_inputs(lease, 0, told(1), [trial(0, value=0.9)])
    spec = client.best_spec(lease.job_id)
    assert (spec.name, spec.experiment, spec.sweep) == ("small-sweep-best", "small-sweep", None)
    assert (spec.train.optimizer.lr, spec.model.params["hidden"]) == (1e-3, [32, 32])
    assert client.submit(spec).job.kind is JobKind.TRAIN


def test_of_a_training_there_is_none(client: Client, submit: Callable[..., Job]) -> None:
    job = submit("name=plain")
    assert client.trials(job.id) == []
    for ask in (lambda: client.extend(job.id, 1), lambda: client.best_spec(job.id)):
        with pytest.raises(ConflictError, match="is no sweep"):
            ask()
