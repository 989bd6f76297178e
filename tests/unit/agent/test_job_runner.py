"""What a runner makes of a job before it asks for any room, and after the training has given it back."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from ray.exceptions import RaySystemError
from ray.util.placement_group import PlacementGroup

from epochal.agent.in_process import LedgerSource
from epochal.agent.job_folder import ensure
from epochal.agent.job_runner import Agent, JobRunner
from epochal.agent.observer import SilentObserver
from epochal.agent.outbox import Outbox
from epochal.agent.progress import ProgressLog
from epochal.agent.reporter import Reporter
from epochal.agent.retry_policy import Ending
from epochal.engine.connection import Connection
from epochal.engine.place import GangRequest, Place
from epochal.engine.warm import WarmPool
from epochal.ledger.states import JobState, Reason
from epochal.ledger.values import Event, Job, Lease
from epochal.settings import home
from epochal.spec.load import load_spec
from epochal.tracking.desired_run import DesiredRun
from epochal.tracking.model import FORMAT_TAG

JOBS = Path(__file__).parents[3] / "jobs"
SWEEP = JOBS / "sweeps" / "digits-cnn.yaml"
NO_CLUSTER = cast(Connection, None)
NO_GROUP = cast(PlacementGroup, None)


def test_a_sweep_that_is_in_the_ledger_already_is_not_trained_as_one_job() -> None:
    ended, _ = run_by(JobRunner, SWEEP, NO_CLUSTER, hands_back=True)
    assert (ended.state, ended.reason) == (JobState.FAILED, Reason.USER_ERROR)
    assert "sweeps cannot be run yet" in ended.message


def test_a_folder_that_cannot_be_written_is_the_machine_s_fault(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = tmp_path / "job.yaml"
    spec.write_text(f"{(JOBS / 'quickstart.yaml').read_text()}\nretry: {{infra: 0}}\n")
    home().storage.mkdir(parents=True)
    (home().storage / "jobs").write_text("in the way")
    ended, _ = run_by(JobRunner, spec, NO_CLUSTER, hands_back=False)
    assert (ended.state, ended.reason) == (JobState.FAILED, Reason.INFRASTRUCTURE)
    assert "NotADirectoryError" in ended.message
    assert "Traceback" not in caplog.text


def run_by(runner: type[JobRunner], path: Path, cluster: Connection, hands_back: bool) -> tuple[Job, list[Event]]:
    """A job as that runner leaves it, and its events."""
    home().root.mkdir(parents=True, exist_ok=True)
    with LedgerSource.open(home().ledger_url) as ledger:
        spec = load_spec(path).spec
        job = ledger.submit(spec.model_dump(mode="json"), name=spec.name)
        lease = ledger.lease("agent", 30.0, job.id)
        assert lease is not None
        agent = Agent("agent", ledger, cluster, home(), "sqlite:///unused", hands_back=hands_back)
        ended = runner(agent, lease, SilentObserver()).run()
        assert ended is not None
        return ended, ledger.events(job.id)


class Trained(JobRunner):
    """Its training is done; Ray goes before the room is given back."""

    def _outcome(self, lease: Lease, outbox: Outbox) -> Ending:
        spec = load_spec(JOBS / "quickstart.yaml").spec
        ensure(self._folder, lease.job, spec)
        self._spec = spec
        self._source.running(lease, 1)
        self.reporter = Reporter(self._source, lease, outbox, self._tracked(spec), self._observer, ProgressLog())
        self._place = Place(self._agent.cluster, GangRequest(lease.job_id, (1, 1)), NO_GROUP, 1)
        self._place.before_closing(fail)
        return Ending(Reason.COMPLETED)


def fail() -> None:
    raise RaySystemError("the GCS is away")


def trained(cluster: Connection, hands_back: bool) -> JobState:
    ended, events = run_by(Trained, JOBS / "quickstart.yaml", cluster, hands_back)
    (told,) = [event.message for event in events if event.kind == "model_not_packaged"]
    assert "RaySystemError" in told
    assert DesiredRun.load(home().job(ended.id)).tags[FORMAT_TAG] == "none"
    return ended.state


def test_a_job_that_was_trained_has_succeeded_though_ray_goes_before_its_room_is_given_back() -> None:
    assert trained(NO_CLUSTER, hands_back=True) is JobState.SUCCEEDED


class Asked(WarmPool):
    """Remembers how many it was asked to keep, and makes none."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[int | None] = []

    def keep(self, per_node: int | None) -> None:
        self.kept.append(per_node)


@pytest.mark.parametrize("hands_back", [True, False])
def test_no_warm_workers_are_made_beside_the_packaging_where_no_job_can_follow(hands_back: bool) -> None:
    pool = Asked()
    trained(Connection("127.0.0.1:1", "node", pool), hands_back)
    assert pool.kept == ([] if hands_back else [0])
