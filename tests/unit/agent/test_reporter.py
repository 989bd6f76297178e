"""Where an attempt's news go."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from epochal.agent.in_process import LedgerSource
from epochal.agent.observer import SilentObserver
from epochal.agent.outbox import Listener, Outbox
from epochal.agent.progress import ProgressLog
from epochal.agent.reporter import Reporter
from epochal.agent.retry_policy import Ending, Terms, decide
from epochal.agent.run_tracking import RunTracking
from epochal.agent.sweep_progress import SweepProgress
from epochal.catalog.understood import Understood
from epochal.errors import StaleLeaseError
from epochal.ledger.states import EventKind, JobState, Reason
from epochal.spec.job import JobSpec, Objective, Retry
from epochal.sweeps.trials import Measured, Trial, TrialState
from epochal.tracking.desired_run import CheckpointPointer, DatasetUsed, DesiredRun, artifacts_folder, desired_run_path
from epochal.tracking.model import FALLBACK_TAG, FORMAT_TAG
from epochal.tracking.sync_state import artifact_files
from epochal.training.control import Noted, Prepared, Progress, SetAside
from epochal.training.data_summary import ClassCount, DataSummary

SPEC = JobSpec.model_validate(
    {"version": 1, "name": "told", "model": {"name": "mlp"}, "data": {"name": "digits"}, "train": {"epochs": 1}}
)


class Notices(SilentObserver):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def notice(self, text: str) -> None:
        self.texts.append(text)


def told(folder: Path, tell: Callable[[Reporter], None], kind: str) -> tuple[str, list[str]]:
    """The message of the one event of that ``kind`` once an attempt has told it and ended, and the user's notices."""
    notices = Notices()
    (message,) = messages(folder, tell, kind, notices)
    return message, notices.texts


def messages(folder: Path, tell: Callable[[Reporter], None], kind: str, notices: Notices) -> list[str]:
    """Those of the events of that ``kind`` once an attempt has told what ``tell`` does and ended."""
    with LedgerSource.open(f"sqlite:///{folder / 'ledger.db'}") as ledger:
        job = ledger.submit(SPEC.model_dump(mode="json"), name="told")
        lease = ledger.lease("agent/1", 30, job.id)
        assert lease is not None
        outbox = Outbox(ledger, lease, Listener(lambda job: None, lambda: None, lambda error: None))
        tracking = RunTracking("sqlite:///unused", folder / "job", job.id, SPEC, notices.notice)
        tell(Reporter(ledger, lease, outbox, tracking, notices, ProgressLog()))
        ending = Ending(Reason.USER_ERROR, "enough")
        outbox.end(lambda: decide(ledger, lease, ending, Terms(Retry(), hands_back=True)))
        assert outbox.wait(10) is not None
        return [event.message for event in ledger.events(job.id) if event.kind == kind]


def test_a_checkpoint_that_was_set_aside_is_read_by_the_user(tmp_path: Path) -> None:
    found = SetAside(8, "checkpoints/step-00000008.damaged", "its digest is wrong")
    message, notices = told(tmp_path, lambda reporter: reporter.report(found), "checkpoint_damaged")
    assert notices == [message]
    assert "step 8 cannot be used (its digest is wrong)" in message
    assert "checkpoints/step-00000008.damaged" in message


def test_notes_of_two_slots_at_once_are_two_events(tmp_path: Path) -> None:
    class OfOthers(Notices):
        """While the first note is told, another slot's thread has one."""

        reporter: Reporter

        def notice(self, text: str) -> None:
            super().notice(text)
            if text == "one":
                other = threading.Thread(target=self.reporter.report, args=(Noted("two"),))
                other.start()
                other.join(10)

    notices = OfOthers()

    def tell(reporter: Reporter) -> None:
        notices.reporter = reporter
        reporter.report(Noted("one"))

    assert sorted(messages(tmp_path, tell, "noted", notices)) == ["one", "two"]
    assert DesiredRun.load(tmp_path / "job").tags["epochal.notes"] == "one; two"


def test_a_trial_that_is_the_best_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunTracking, "start", lambda tracking: None)  # MLflow is not what this is about

    def tell(reporter: Reporter) -> None:
        for curve in ((Measured(1, 0.5),), (Measured(1, 0.5), Measured(3, 0.75))):
            best = Trial(7, {"train.optimizer.lr": 0.1}, TrialState.PAUSED, curve=curve)
            reporter.swept(SweepProgress(Objective(metric="val/accuracy", mode="max"), [best], 8, best))

    message, _ = told(tmp_path, tell, "new_best")
    assert message == "trial 7: val/accuracy 0.5 at 1"


def test_the_link_to_a_run_that_begins_leads_to_what_people_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a cluster agents know MLflow by a name that no browser knows."""
    monkeypatch.setenv("EPOCHAL_TRACKING_PAGE", "https://mlflow.example.com")
    monkeypatch.setattr(RunTracking, "start", lambda tracking: None)
    monkeypatch.setattr(RunTracking, "run_id", "r")
    told(tmp_path, lambda reporter: reporter.report(Progress("train", 1, 30, 0, 1.0)), "run_set")
    with LedgerSource.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        (job,) = ledger.jobs()
        assert (job.run_id, job.tracking_uri) == ("r", "https://mlflow.example.com")


def test_the_last_step_is_the_furthest_that_a_worker_told_of(tmp_path: Path) -> None:
    """Progress is told now and then: workers that are killed have done more."""
    steps = []

    def tell(reporter: Reporter) -> None:
        for step in (1, 3, 2):
            reporter.reached(step, "train")
        steps.append(reporter.step)
        reporter.report(SetAside(8, "checkpoints/step-00000008.damaged", "its digest is wrong"))

    told(tmp_path, tell, "checkpoint_damaged")
    assert steps == [3]


def test_the_ledger_hears_of_a_step_that_no_report_came_after(tmp_path: Path) -> None:
    def tell(reporter: Reporter) -> None:
        reporter.report(Progress("train", 0, 30, 0, 1.0))  # the first: MLflow is not asked yet
        reporter.reached(3, "train")

    told(tmp_path, tell, "leased")
    with LedgerSource.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        assert (ledger.jobs()[0].progress or {})["step"] == 3


def test_it_is_told_that_what_a_job_still_does_is_to_package_its_model(tmp_path: Path) -> None:
    message, notices = told(tmp_path, Reporter.packaging, "packaging")
    assert notices == [message]


def test_a_model_that_was_not_packaged_is_read_by_the_user(tmp_path: Path) -> None:
    failed = Ending(Reason.USER_ERROR, "TypeError: cannot pickle '_thread.lock' object")
    message, notices = told(tmp_path, lambda reporter: reporter.packaged(failed), "model_not_packaged")
    assert notices == [message]
    assert message.endswith("the model was not packaged for MLflow: TypeError: cannot pickle '_thread.lock' object")
    tags = DesiredRun.load(tmp_path / "job").tags
    assert (tags[FORMAT_TAG], tags[FALLBACK_TAG]) == ("none", failed.message)


def test_what_the_data_was_taken_for_is_kept_whole_with_the_run_and_its_beginning_with_the_job(tmp_path: Path) -> None:
    parts = tuple(Understood(f"c{number}", "number") for number in range(150))
    data = DataSummary("csv", "/data/t.csv", "d1", 12, 3, parts, (ClassCount("no", 7, 2), ClassCount("yes", 5, 1)))
    told(tmp_path, lambda reporter: reporter.report(Prepared(data, 650)), "leased")
    artifacts = artifacts_folder(tmp_path / "job")
    assert json.loads((artifacts / "data.json").read_text()) == json.loads(json.dumps(data.to_dict()))
    assert (artifacts / "data.txt").read_text() == data.text()
    assert set(artifact_files(tmp_path / "job")) == {"data.json", "data.txt"}
    with LedgerSource.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        kept = ledger.full_job(ledger.jobs()[0].id).data
    assert kept is not None
    assert (len(kept["understood"]), kept["more_understood"], kept["classes"][1]["train"]) == (100, 50, 5)
    run = DesiredRun.load(tmp_path / "job")
    assert run.dataset == DatasetUsed("csv", "d1", "/data/t.csv")
    assert run.tags["epochal.parameters"] == "650"


@pytest.mark.parametrize("left", ["", "[1]", '{"of": "another time"}'], ids=["nothing", "a list", "other fields"])
def test_a_record_that_the_power_took_is_written_anew_and_told(tmp_path: Path, left: str) -> None:
    RunTracking("sqlite:///unused", tmp_path, "digits-1", SPEC, lambda text: None)
    desired_run_path(tmp_path).write_text(left)
    notices: list[str] = []
    RunTracking("sqlite:///unused", tmp_path, "digits-1", SPEC, notices.append)
    assert DesiredRun.load(tmp_path).job_id == "digits-1"
    (told,) = notices
    assert "run.json cannot be read, and is written anew" in told


def test_a_folder_that_cannot_be_written_does_not_end_the_training(tmp_path: Path) -> None:
    job = tmp_path / "job"
    tracking = RunTracking("sqlite:///unused", job, "digits-1", SPEC, lambda text: None)
    job.rename(tmp_path / "away")
    job.write_text("in the way")
    tracking.update(tags={"first": "1"})
    tracking.checkpoint(CheckpointPointer(8, "checkpoints/step-00000008", "ab"))
    job.unlink()
    tracking.update(tags={"second": "2"})
    assert DesiredRun.load(job).tags.items() >= {"first": "1", "second": "2"}.items()


def test_what_mlflow_does_not_take_is_an_event(tmp_path: Path) -> None:
    why = "its run was deleted in MLflow"
    message, notices = told(tmp_path, lambda reporter: reporter._tracking.notice(why), "tracking")
    assert notices == [message] == [why]


def test_what_mlflow_does_not_take_is_an_event_once_the_attempt_is_over_too(tmp_path: Path) -> None:
    """A short training ends before MLflow has been asked at all."""
    notices = Notices()
    with LedgerSource.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        job = ledger.submit(SPEC.model_dump(mode="json"), name="told")
        lease = ledger.lease("agent/1", 30, job.id)
        assert lease is not None
        outbox = Outbox(ledger, lease, Listener(lambda job: None, lambda grace: None, lambda error: None))
        tracking = RunTracking("sqlite:///unused", tmp_path / "job", job.id, SPEC, notices.notice)
        Reporter(ledger, lease, outbox, tracking, notices, ProgressLog())
        ledger.finish(lease, JobState.FAILED, Reason.USER_ERROR)
        tracking.notice("its experiment was deleted in MLflow")
        with pytest.raises(StaleLeaseError):
            ledger.note(lease, EventKind.NOTED, "too late")
        (event,) = [event for event in ledger.events(job.id) if event.kind == EventKind.TRACKING]
        outbox.end(lambda: lambda: ledger.job(job.id))
        outbox.wait(10)
    assert notices.texts == [event.message]


def test_what_a_worker_notes_is_an_event_and_stands_with_the_run(tmp_path: Path) -> None:
    why = "val/r2 is left out: it needs two validation samples, and there is one"
    message, notices = told(tmp_path, lambda reporter: reporter.report(Noted(why)), "noted")
    assert notices == [message] == [why]
    assert DesiredRun.load(tmp_path / "job").tags["epochal.notes"] == why


def test_what_the_slots_of_a_sweep_tell_at_once_is_all_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = RunTracking("sqlite:///unused", tmp_path, "digits-1", SPEC, lambda text: None)
    save = DesiredRun.save
    other = threading.Thread(target=tracking.update, kwargs={"tags": {"epochal.parameters": "42"}})

    def slowly(desired: DesiredRun, folder: Path) -> None:
        monkeypatch.undo()
        other.start()
        other.join(0.2)
        save(desired, folder)

    monkeypatch.setattr(DesiredRun, "save", slowly)
    tracking.update(tags={"epochal.world_size": "2"})
    other.join()
    assert {"epochal.world_size", "epochal.parameters"} <= DesiredRun.load(tmp_path).tags.keys()
