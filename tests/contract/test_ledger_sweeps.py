"""Sweeps in the ledger: inputs, trials, requests, and the way back from an end. On every database."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from ledger_steps import running, submit

from epochal.errors import ConflictError, NotFoundError, SpecError, StaleLeaseError, UsageError
from epochal.ledger.lease_operations import MOST_LOSSES
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import EventKind, JobKind, JobState, Reason
from epochal.ledger.sweep_values import NewInput, SweepRequest, TrialRecord, best_first
from epochal.ledger.values import FullJob, Job, Lease, Renewal
from epochal.spec.job import JobSpec
from epochal.sweeps.trials import Added, Cancelled, Extended, Measured, Repeated, Trial, TrialState

SPEC: dict[str, Any] = {
    "version": 1,
    "name": "digits-sweep",
    "objective": {"metric": "val/accuracy", "mode": "max"},
    "resources": {"workers": 2},
    "sweep": {"trials": 8, "space": {"train.optimizer.lr": {"choice": [0.1, 0.2]}}},
}
NAN = math.nan


def sweep(ledger: Ledger) -> FullJob:
    return ledger.submit(SPEC, name="digits-sweep")


@pytest.fixture
def lease(ledger: Ledger) -> Lease:
    """Of a sweep that runs."""
    lease = ledger.lease("agent-1", 60, sweep(ledger).id)
    assert lease is not None
    ledger.running(lease, world_size=2)
    return lease


def told(*numbers: int, key: str | None = None) -> list[NewInput]:
    return [NewInput({"input": "reached", "trial": number, "value": 0.5}, key) for number in numbers]


def trial(number: int, state: TrialState = TrialState.RUNNING, **fields: Any) -> TrialRecord:
    return TrialRecord(number, {"train.optimizer.lr": 0.1, "model.params.channels": [16, 32]}, state, **fields)


def succeeded(ledger: Ledger, lease: Lease) -> JobState:
    return ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED).state


class TestKind:
    def test_is_the_spec_s(self, ledger: Ledger) -> None:
        assert (sweep(ledger).kind, submit(ledger).kind) == (JobKind.SWEEP, JobKind.TRAIN)
        assert ledger.job("digits-sweep").to_dict()["kind"] == "sweep"

    def test_what_is_a_sweep_s_is_refused_of_a_training(self, ledger: Ledger) -> None:
        lease = running(ledger)
        with pytest.raises(ConflictError, match="is no sweep"):
            ledger.append_inputs(lease, 0, told(1))
        with pytest.raises(ConflictError, match="is no sweep"):
            ledger.ask(lease.job_id, {"kind": "extend", "trials": 1}, "k")


class TestEarlier:
    def test_is_kept_by_its_id(self, ledger: Ledger) -> None:
        earlier = sweep(ledger)
        found = ledger.with_earlier_found(warm_started("digits-sweep"))
        assert found.sweep is not None
        assert found.sweep.search.earlier == earlier.id
        assert found.model_dump(mode="json")["sweep"]["search"]["from"] == earlier.id
        assert ledger.with_earlier_found(warm_started(None)) == warm_started(None)

    def test_is_the_same_where_a_submission_is_repeated(self, ledger: Ledger) -> None:
        """Its answer was lost, and the newest of that name is the sweep that it has made itself."""
        earlier = sweep(ledger)
        named = warm_started("digits-sweep")

        def submitted(key: str) -> Job:
            found = ledger.with_earlier_found(named, key, "ada")
            return ledger.submit(found.model_dump(mode="json"), name="digits-sweep", key=key, submitted_by="ada")

        first = submitted("k")
        assert submitted("k").id == first.id
        learnt = [ledger.full_job(one.id).spec["sweep"]["search"]["from"] for one in (first, submitted("another"))]
        assert learnt == [earlier.id, first.id]

    def test_has_to_be_a_sweep_that_is_there(self, ledger: Ledger) -> None:
        training = submit(ledger)
        for named, said in (("digits-swep", "no job is named 'digits-swep'"), (training.id, "is no sweep")):
            with pytest.raises(SpecError) as caught:
                ledger.with_earlier_found(warm_started(named))
            (problem,) = caught.value.problems
            assert problem.path == "sweep.search.from"
            assert said in problem.message


def warm_started(earlier: str | None) -> JobSpec:
    search = {"name": "tpe", "from": earlier}
    sections = {"model": {"name": "mlp"}, "data": {"name": "digits"}, "train": {"epochs": 1}}
    return JobSpec.model_validate({**SPEC, **sections, "sweep": {**SPEC["sweep"], "search": search}})


class TestInputs:
    def test_are_read_as_they_were_told(self, ledger: Ledger, lease: Lease) -> None:
        assert ledger.append_inputs(lease, 0, told(0, 1)) == 2
        assert ledger.append_inputs(lease, 2, told(2, key="k")) == 3
        found = ledger.inputs(lease.job_id)
        assert [(one.seq, one.epoch, one.key, one.body["trial"]) for one in found] == [
            (1, 1, None, 0),
            (2, 1, None, 1),
            (3, 1, "k", 2),
        ]
        assert ledger.inputs(lease.job_id, after=1, limit=1) == found[1:2]
        assert ledger.append_inputs(lease, 3, []) == 3

    def test_told_again_they_change_nothing(self, ledger: Ledger, lease: Lease) -> None:
        ledger.append_inputs(lease, 0, told(0, 1), [trial(0)])
        before = ledger.inputs(lease.job_id), ledger.trials(lease.job_id)
        assert ledger.append_inputs(lease, 0, told(0, 1), [trial(0, TrialState.FAILED)]) == 2
        assert (ledger.inputs(lease.job_id), ledger.trials(lease.job_id)) == before

    @pytest.mark.parametrize(
        ("after", "batch"),
        [(3, told(2)), (0, told(0, 7)), (1, told(1, 2)), (0, told(0, 1, key="k")), (1, [])],
        ids=["gap", "other", "longer", "key", "none"],
    )
    def test_what_does_not_follow_is_refused(
        self, ledger: Ledger, lease: Lease, after: int, batch: list[NewInput]
    ) -> None:
        ledger.append_inputs(lease, 0, told(0, 1))
        with pytest.raises(ConflictError, match=r"newest input of .* is 2"):
            ledger.append_inputs(lease, after, batch, [trial(5)])
        assert (len(ledger.inputs(lease.job_id)), ledger.trials(lease.job_id)) == (2, [])

    def test_of_an_attempt_that_is_over_are_refused(self, ledger: Ledger, lease: Lease) -> None:
        again = ledger.lease_again(lease, 60, Reason.INFRASTRUCTURE)
        assert again is not None
        with pytest.raises(StaleLeaseError):
            ledger.append_inputs(lease, 0, told(0), [trial(0)])
        assert ledger.append_inputs(again, 0, told(1)) == 1
        assert [one.epoch for one in ledger.inputs(lease.job_id)] == [2]


class TestTrials:
    def test_the_newest_that_was_told_of_each_is_kept(self, ledger: Ledger, lease: Lease) -> None:
        waits = trial(1, TrialState.WAITING, until=3.0)
        ledger.append_inputs(lease, 0, told(0), [trial(0, until=1.0), waits])
        done = trial(0, TrialState.COMPLETED, length=9.0, value=0.75, metrics={"val/loss": 0.5}, run_id="r0")
        failed = trial(1, TrialState.FAILED, reason="OUT_OF_MEMORY", message="rank 0: \x00 out of memory")
        ledger.append_inputs(lease, 1, told(0), [done, trial(2), failed])
        found = ledger.trials(lease.job_id)
        assert [replace(one, started_at=None, ended_at=None, updated_at=None) for one in found] == [
            done,
            replace(failed, message="rank 0: \ufffd out of memory"),
            trial(2),
        ]
        assert [one.started_at is not None for one in found] == [True, True, True]
        assert [one.ended_at is not None for one in found] == [True, True, False]

    def test_one_that_fails_is_an_event_and_no_other(self, ledger: Ledger, lease: Lease) -> None:
        failed = trial(0, TrialState.FAILED, reason="OUT_OF_MEMORY", message="rank 0: no memory")
        ledger.append_inputs(lease, 0, told(0), [trial(0), trial(1)])
        for seq in (1, 2):
            ledger.append_inputs(lease, seq, told(0), [failed, trial(1, TrialState.STOPPED)])
        told_of = [event for event in ledger.events(lease.job_id) if event.kind == EventKind.TRIAL_FAILED]
        assert [(event.message, event.detail) for event in told_of] == [
            ("trial 0: rank 0: no memory", {"trial": 0, "reason": "OUT_OF_MEMORY"})
        ]

    def test_one_that_goes_on_has_not_ended(self, ledger: Ledger, lease: Lease) -> None:
        ledger.append_inputs(lease, 0, told(0), [trial(0, TrialState.STOPPED, length=1.0)])
        (ended,) = ledger.trials(lease.job_id)
        ledger.append_inputs(lease, 1, told(0), [trial(0, TrialState.WAITING, length=1.0)])
        (waits,) = ledger.trials(lease.job_id)
        assert ended.ended_at is not None
        assert (waits.ended_at, waits.started_at) == (None, ended.started_at)

    @pytest.mark.parametrize("value", [NAN, math.inf, -math.inf, 0.1 + 0.2, 1e-300, None], ids=str)
    def test_every_value_survives(self, ledger: Ledger, lease: Lease, value: float | None) -> None:
        metrics = {} if value is None else {"val/loss": value}
        curve = () if value is None else ((1.0, 0.5), (2.0, value))
        ledger.append_inputs(lease, 0, told(0), [trial(0, value=value, metrics=metrics, curve=curve)])
        (found,) = ledger.trials(lease.job_id)
        (travelled,) = (TrialRecord.from_dict(found.to_dict()),)
        for one in (found, travelled):
            assert repr((one.value, dict(one.metrics), one.curve)) == repr((value, metrics, curve))

    def test_have_runs_that_are_known_once_the_attempt_is_over(self, ledger: Ledger, lease: Lease) -> None:
        ledger.append_inputs(lease, 0, told(0), [trial(0, run_id="r0"), trial(1), trial(2)])
        ledger.append_inputs(lease, 1, told(0), [trial(0, TrialState.COMPLETED)])
        succeeded(ledger, lease)
        ledger.set_trial_runs(lease, {1: "r1", 7: "of no trial"})
        ledger.set_trial_runs(lease, {})
        assert [one.run_id for one in ledger.trials(lease.job_id)] == ["r0", "r1", None]
        ledger.ask(lease.job_id, EXTEND, "k")
        assert ledger.lease("agent-1", 60, lease.job_id) is not None
        with pytest.raises(StaleLeaseError):
            ledger.set_trial_runs(lease, {2: "r2"})
        with pytest.raises(ConflictError, match="is no sweep"):
            ledger.set_trial_runs(running(ledger), {2: "r2"})

    def test_can_be_read_in_parts(self, ledger: Ledger, lease: Lease) -> None:
        states = [TrialState.COMPLETED, TrialState.FAILED] * 3
        ledger.append_inputs(lease, 0, told(0), [trial(number, state) for number, state in enumerate(states)])
        assert [one.number for one in ledger.trials(lease.job_id, after=1, limit=2)] == [2, 3]
        assert [one.number for one in ledger.trials(lease.job_id, [TrialState.FAILED], after=1)] == [3, 5]

    def test_of_a_controller_s_trial(self) -> None:
        known = Trial(3, {"a.b": 1}, TrialState.FAILED, 9.0, (Measured(1, 0.5), Measured(3, 0.7)), "HANG", "rank 1")
        record = TrialRecord(3, {"a.b": 1}, TrialState.FAILED, 3, 9.0, 0.7, {}, "r", "HANG", "rank 1")
        record = replace(record, curve=((1, 0.5), (3, 0.7)))
        assert TrialRecord.of(known, "r") == record
        assert TrialRecord.of(Trial(0, {})) == TrialRecord(0, {}, TrialState.WAITING)

    @pytest.mark.parametrize(("mode", "order"), [("max", [5, 3, 1, 4, 0, 2, 6]), ("min", [5, 4, 1, 3, 0, 2, 6])])
    def test_best_first(self, mode: str, order: list[int]) -> None:
        values = [None, 0.5, NAN, 0.9, -1.0]
        records = [trial(number, TrialState.PAUSED, value=value) for number, value in enumerate(values)]
        records += [trial(5, TrialState.COMPLETED, value=0.0), trial(6, TrialState.FAILED, value=0.95)]
        assert [one.number for one in best_first(records, mode)] == order


EXTEND = {"kind": "extend", "trials": 4}
POINT = {"train.optimizer.lr": 0.3}


class TestRequests:
    def test_reach_the_agent_by_its_renewal(self, ledger: Ledger, lease: Lease) -> None:
        assert ledger.renew(lease, 60).requested == 0
        ledger.append_inputs(lease, 0, told(0), [trial(0)])
        asks: list[tuple[dict[str, Any], Any]] = [
            (EXTEND, Extended(4)),
            ({"kind": "add", "points": [POINT]}, Added((POINT,))),
            ({"kind": "repeat", "trial": 0, "times": 3}, Repeated(0, 3)),
            ({"kind": "cancel", "trial": 0}, Cancelled(0)),
        ]
        for number, (body, _) in enumerate(asks):
            assert ledger.ask(lease.job_id, body, f"k{number}", by="ada").state is JobState.RUNNING
        assert ledger.renew(lease, 60).requested == 4
        assert ledger.renew_all([Renewal(lease.job_id, 1, lease.secret)], 60)[0] != ledger.renew(lease, 60)
        found = ledger.requests(lease.job_id)
        assert [(one.seq, one.key, one.by, one.told) for one in found] == [
            (number + 1, f"k{number}", "ada", said) for number, (_, said) in enumerate(asks)
        ]
        assert ledger.requests(lease.job_id, after=3) == found[3:]
        assert SweepRequest.from_dict(found[1].to_dict()).told == Added((POINT,))

    def test_are_events(self, ledger: Ledger, lease: Lease) -> None:
        ledger.ask(lease.job_id, EXTEND, "k", by="ada")
        event = ledger.events(lease.job_id)[-1]
        assert (event.kind, event.state, event.message) == (EventKind.ASKED, JobState.RUNNING, "4 trials more")
        assert event.detail == {"request": 1, "by": "ada", **EXTEND}

    def test_asked_again_with_its_key_is_one(self, ledger: Ledger, lease: Lease) -> None:
        ledger.ask(lease.job_id, EXTEND, "k")
        ledger.ask(lease.job_id, EXTEND, "k")
        with pytest.raises(ConflictError, match="belongs to another request"):
            ledger.ask(lease.job_id, {**EXTEND, "trials": 5}, "k")
        assert len(ledger.requests(lease.job_id)) == 1
        assert ledger.ask(sweep(ledger).id, EXTEND, "k").state is JobState.QUEUED, "the key is the job's own"

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"kind": "grow"},
            {"kind": "extend"},
            {"kind": "extend", "trials": 0},
            {**EXTEND, "x": 1},
            {"kind": "add", "points": []},
            {"kind": "add", "points": [{}]},
            {"kind": "cancel", "trial": "0"},
        ],
        ids=str,
    )
    def test_that_are_none_are_refused(self, ledger: Ledger, lease: Lease, body: dict[str, Any]) -> None:
        with pytest.raises(UsageError, match="cannot be asked of a sweep"):
            ledger.ask(lease.job_id, body, "k")
        assert ledger.requests(lease.job_id) == []

    def test_name_a_trial_that_is_there_and_goes_on(self, ledger: Ledger, lease: Lease) -> None:
        ledger.append_inputs(lease, 0, told(0), [trial(0, TrialState.COMPLETED)])
        with pytest.raises(NotFoundError, match=r"trial of .* is named '7'"):
            ledger.ask(lease.job_id, {"kind": "repeat", "trial": 7}, "a")
        with pytest.raises(ConflictError, match=r"trial 0 .* is over: COMPLETED"):
            ledger.ask(lease.job_id, {"kind": "cancel", "trial": 0}, "b")
        assert ledger.ask(lease.job_id, {"kind": "repeat", "trial": 0}, "c").state is JobState.RUNNING

    def test_of_one_that_is_being_stopped_are_refused(self, ledger: Ledger, lease: Lease) -> None:
        ledger.request_stop(lease.job_id)
        with pytest.raises(ConflictError, match="is being stopped"):
            ledger.ask(lease.job_id, EXTEND, "k")

    def test_of_one_that_waits_change_no_state(self, ledger: Ledger, lease: Lease) -> None:
        ledger.pause(lease)
        assert ledger.ask(lease.job_id, EXTEND, "k").state is JobState.PAUSED
        assert ledger.ask(sweep(ledger).id, EXTEND, "k").state is JobState.QUEUED


class TestExtension:
    @pytest.mark.parametrize("end", ["succeeded", "failed", "stopped"])
    def test_of_one_that_has_ended_queues_it_again(self, ledger: Ledger, lease: Lease, end: str) -> None:
        if end == "succeeded":
            succeeded(ledger, lease)
        elif end == "failed":
            ledger.finish(lease, JobState.FAILED, Reason.USER_ERROR, "4 trials failed")
        else:
            ledger.request_stop(lease.job_id)
            ledger.stopped(lease)
        job = ledger.ask(lease.job_id, EXTEND, "k", by="ada")
        assert (job.state, job.reason, job.message, job.ended_at) == (JobState.QUEUED, None, "4 trials more", None)
        assert (job.waited_seconds, job.ran_seconds) == (0.0, 0.0)
        event = ledger.events(job.id)[-1]
        assert (event.kind, event.previous) == (EventKind.EXTENDED, JobState(end.upper()))
        again = ledger.lease("agent-2", 60)
        assert again is not None
        assert (again.job_id, again.epoch) == (job.id, 2)
        assert [one.told for one in ledger.requests(job.id)] == [Extended(4)]

    def test_trainings_that_have_ended_stay_so(self, ledger: Ledger) -> None:
        lease = running(ledger)
        succeeded(ledger, lease)
        with pytest.raises(ConflictError, match="is no sweep"):
            ledger.ask(lease.job_id, EXTEND, "k")
        with pytest.raises(ConflictError, match="not PAUSED"):
            ledger.resume(lease.job_id)

    def test_asked_while_it_finishes_is_not_lost(self, ledger: Ledger, lease: Lease) -> None:
        ledger.append_inputs(lease, 0, [NewInput({"input": "extended"}, "taken")])
        ledger.ask(lease.job_id, EXTEND, "taken")
        ledger.ask(lease.job_id, {**EXTEND, "trials": 1}, "late")
        assert succeeded(ledger, lease) is JobState.QUEUED
        assert succeeded(ledger, lease) is JobState.QUEUED, "told again"
        kinds = [event.kind for event in ledger.events(lease.job_id)]
        assert kinds[-2:] == [EventKind.SUCCEEDED, EventKind.EXTENDED]
        assert ledger.job(lease.job_id).message == "asked while it finished: 1 trial more"

    def test_asked_while_it_finishes_and_is_to_pause_is_not_lost(self, ledger: Ledger, lease: Lease) -> None:
        ledger.ask(lease.job_id, EXTEND, "late")
        ledger.request_pause(lease.job_id)
        assert [succeeded(ledger, lease) for _ in range(2)] == [JobState.PAUSED] * 2
        assert ledger.resume(lease.job_id).state is JobState.QUEUED

    def test_what_its_controller_refused_does_not_begin_it_for_ever(self, ledger: Ledger, lease: Lease) -> None:
        ledger.ask(lease.job_id, EXTEND, "refused")
        assert succeeded(ledger, lease) is JobState.QUEUED
        again = ledger.lease("agent-1", 60, lease.job_id)
        assert again is not None
        ledger.running(again, world_size=2)
        assert succeeded(ledger, again) is JobState.SUCCEEDED

    def test_what_the_agent_took_ends_it(self, ledger: Ledger, lease: Lease) -> None:
        ledger.ask(lease.job_id, EXTEND, "taken")
        ledger.append_inputs(lease, 0, [NewInput({"input": "extended"}, "taken")], [trial(0)])
        ledger.ask(lease.job_id, {"kind": "cancel", "trial": 0}, "late")
        assert succeeded(ledger, lease) is JobState.SUCCEEDED

    def test_one_that_fails_before_it_hears_stays_failed(self, ledger: Ledger, lease: Lease) -> None:
        ledger.ask(lease.job_id, EXTEND, "late")
        job = ledger.finish(lease, JobState.FAILED, Reason.USER_ERROR)
        assert job.state is JobState.FAILED


def test_one_that_has_ended_can_be_extended_or_begun_anew(ledger: Ledger, lease: Lease) -> None:
    succeeded(ledger, lease)
    change = ledger.why(lease.job_id).change
    assert (
        change == f"`epochal sweep extend {lease.job_id} --trials N`, or `epochal retry {lease.job_id}`, as a new job"
    )


def test_pruning_takes_all_of_a_sweep(ledger: Ledger, lease: Lease) -> None:
    ledger.append_inputs(lease, 0, told(0), [trial(0)])
    ledger.ask(lease.job_id, EXTEND, "k")
    ledger.finish(lease, JobState.FAILED, Reason.USER_ERROR)
    assert len(list(ledger.prune(None, 0))) == 1
    left = ledger.inputs(lease.job_id), ledger.trials(lease.job_id), ledger.requests(lease.job_id)
    assert left == ([], [], [])


@pytest.mark.parametrize(("kind", "state"), [("reached", JobState.QUEUED), ("asked", JobState.PAUSED)])
def test_a_sweep_whose_trials_get_on_is_not_suspected(ledger: Ledger, lease: Lease, kind: str, state: JobState) -> None:
    for seq in range(MOST_LOSSES):
        ledger.running(lease, 1)
        ledger.append_inputs(lease, seq, [NewInput({"kind": kind, "trial": seq})])
        assert ledger.retry(lease, Reason.INTERRUPTED, "Ray was lost", lost=True).state in (JobState.QUEUED, state)
        if (again := ledger.lease("agent-1", 60, lease.job_id)) is not None:
            lease = again
    assert ledger.retry(lease, Reason.INTERRUPTED, "Ray was lost", lost=True).state is state
