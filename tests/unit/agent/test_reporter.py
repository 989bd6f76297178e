"""Where an attempt's news go."""

from __future__ import annotations

from pathlib import Path

from epochal.agent.in_process import LedgerSource
from epochal.agent.observer import SilentObserver
from epochal.agent.outbox import Listener, Outbox
from epochal.agent.progress import ProgressLog
from epochal.agent.reporter import Reporter
from epochal.agent.run_tracking import RunTracking
from epochal.agent.settlement import Ending, Terms, decide
from epochal.ledger.states import Reason
from epochal.spec.job import JobSpec, Retry
from epochal.training.control import SetAside

SPEC = JobSpec.model_validate(
    {"version": 1, "name": "told", "model": {"name": "mlp"}, "data": {"name": "digits"}, "train": {"epochs": 1}}
)


class Notices(SilentObserver):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def notice(self, text: str) -> None:
        self.texts.append(text)


def test_a_checkpoint_that_was_set_aside_is_read_by_the_user(tmp_path: Path) -> None:
    notices = Notices()
    with LedgerSource.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        job = ledger.submit(SPEC.model_dump(mode="json"), name="told")
        lease = ledger.lease("agent/1", 30, job.id)
        assert lease is not None
        outbox = Outbox(ledger, lease, Listener(lambda job: None, lambda: None, lambda error: None))
        tracking = RunTracking("sqlite:///unused", tmp_path / "job", job.id, SPEC, notices.notice)
        reporter = Reporter(ledger, lease, outbox, tracking, notices, ProgressLog())
        reporter.report(SetAside(8, "checkpoints/step-00000008.damaged", "its digest is wrong"))
        ending = Ending(Reason.USER_ERROR, "enough")
        outbox.end(lambda: decide(ledger, lease, ending, Terms(Retry(), hands_back=True)))
        assert outbox.wait(10) is not None
        (event,) = [event for event in ledger.events(job.id) if event.kind == "checkpoint_damaged"]
    assert notices.texts == [event.message]
    assert "step 8 cannot be used (its digest is wrong)" in event.message
    assert "checkpoints/step-00000008.damaged" in event.message
