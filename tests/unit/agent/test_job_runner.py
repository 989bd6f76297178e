"""What a runner makes of a job before it asks for any room, and after the training has given it back."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import cast

import pytest
from ray.exceptions import RaySystemError
from ray.util.placement_group import PlacementGroup

from epochal.agent import job_runner
from epochal.agent.in_process import LedgerSource
from epochal.agent.job_folder import ensure, saved
from epochal.agent.job_runner import Agent, JobRunner, Phase
from epochal.agent.kept_secrets import secret_of
from epochal.agent.observer import SilentObserver
from epochal.agent.outbox import Outbox
from epochal.agent.progress import ProgressLog
from epochal.agent.reporter import Reporter
from epochal.agent.retry_policy import Ending
from epochal.engine.connection import Connection
from epochal.engine.place import GangRequest, Place
from epochal.engine.warm import WarmPool
from epochal.errors import AuthError, NotFoundError
from epochal.files import write_atomically
from epochal.ledger.states import JobState, Reason
from epochal.ledger.values import Event, Job, Lease
from epochal.settings import home
from epochal.spec.job import JobSpec
from epochal.spec.load import load_spec
from epochal.tracking.desired_run import DesiredRun
from epochal.tracking.model import FORMAT_TAG
from epochal.training.checkpoint import name_of

JOBS = Path(__file__).parents[3] / "jobs"
NO_CLUSTER = cast(Connection, None)
NO_GROUP = cast(PlacementGroup, None)


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
        lease = ledger.lease("agent", 30.0, job.id, "s3cret")
        assert lease is not None
        agent = Agent("agent", ledger, cluster, home(), "sqlite:///unused", hands_back=hands_back)
        ended = runner(agent, lease, SilentObserver()).run()
        assert ended is not None
        return ended, ledger.events(job.id)


class Stuck(JobRunner):
    """Its workers are asked to end, and are killed."""

    asked: str

    def _train(self, lease: Lease, spec: JobSpec, outbox: Outbox) -> Ending:
        self._source.running(lease, 1)
        if self.asked == "time":
            self._enter(Phase.TIMED_OUT)
        else:
            getattr(self._source, self.asked)(lease.job_id)
            self.interrupt(0.0)
        return Ending(Reason.HANG, "rank 0: killed")


class Leaving(JobRunner):
    """Its agent gives up, and its workers save their state in time."""

    def _train(self, lease: Lease, spec: JobSpec, outbox: Outbox) -> Ending:
        self._source.running(lease, 1)
        self.leave("Ray was lost: its GCS does not answer")
        return Ending(None)


def test_why_its_agent_left_is_told_though_its_state_was_saved() -> None:
    ended, events = run_by(Leaving, JOBS / "quickstart.yaml", NO_CLUSTER, hands_back=True)
    assert ended.state is JobState.QUEUED
    (told,) = [event.message for event in events if event.kind == "requeued"]
    assert "Ray was lost: its GCS does not answer" in told


def test_of_what_comes_at_once_the_strongest_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that leaves must know that it does, whatever else is asked of the job at that moment."""
    with LedgerSource.open("sqlite://") as ledger:
        ledger.submit({"version": 1}, name="digits")
        lease = ledger.lease("agent", 30.0)
    assert lease is not None
    runner = JobRunner(Agent("agent", ledger, NO_CLUSTER, home(), "sqlite://"), lease, SilentObserver())
    leaving = threading.Thread(target=runner.leave, args=("the agent was shut down",))

    def slowly(*phases: Phase) -> Phase:
        monkeypatch.undo()
        leaving.start()
        leaving.join(0.2)
        return max(*phases)

    monkeypatch.setattr(job_runner, "max", slowly, raising=False)
    runner.interrupt(30.0)
    leaving.join()
    assert runner._terms().leaves


class Refused(LedgerSource):
    """A server that does not take the agent's token, for a moment."""

    def fetch_code(self, digest: str, into: Path) -> Path:
        if not hasattr(self, "asked"):
            self.asked = True
            raise AuthError("this token is not known, was revoked or has expired")
        raise NotFoundError("code package", digest)


def test_a_token_that_is_refused_for_a_moment_is_not_the_job_s_fault() -> None:
    home().root.mkdir(parents=True)
    with Refused.open(home().ledger_url) as ledger:
        spec = load_spec(JOBS / "quickstart.yaml").spec
        job = ledger.submit(spec.model_dump(mode="json"), name=spec.name, origin={"code": "d" * 64})
        lease = ledger.lease("agent", 30.0, job.id, "s3cret")
        assert lease is not None
        ended = JobRunner(
            Agent("agent", ledger, NO_CLUSTER, home(), "sqlite:///unused", hands_back=True), lease, SilentObserver()
        ).run()
    assert ended is not None
    assert "code package" in ended.message, "it was asked for again"


@pytest.mark.parametrize("hands_back", [True, False])
def test_the_secret_of_its_lease_is_kept_from_its_start_until_all_is_told(hands_back: bool) -> None:
    """The agent may die before its run is closed: the next one tells the ledger of it by this."""
    Secretive.had = []
    ended, _ = run_by(Secretive, JOBS / "quickstart.yaml", NO_CLUSTER, hands_back)
    assert ended.state is JobState.SUCCEEDED
    assert Secretive.had == [hands_back]
    assert bool(secret_of(home().job(ended.id), 1)) is hands_back


class Secretive(JobRunner):
    """Looks whether the secret is kept while it trains."""

    had: list[bool]

    def _train(self, lease: Lease, spec: JobSpec, outbox: Outbox) -> Ending:
        self._source.running(lease, 1)
        self.had.append(secret_of(self._folder, lease.epoch) == lease.secret != "")
        return Ending(Reason.COMPLETED)


@pytest.mark.parametrize("hands_back", [True, False])
@pytest.mark.parametrize(
    ("asked", "state", "reason"),
    [
        ("request_stop", JobState.STOPPED, Reason.STOPPED_BY_USER),
        ("request_pause", JobState.PAUSED, Reason.STOPPED_BY_USER),
        ("time", JobState.FAILED, Reason.TIMEOUT),
    ],
)
def test_a_job_ends_as_it_was_asked_to_though_its_workers_do_not(
    monkeypatch: pytest.MonkeyPatch, asked: str, state: JobState, reason: Reason, hands_back: bool
) -> None:
    monkeypatch.setattr(Stuck, "asked", asked, raising=False)
    ended, events = run_by(Stuck, JOBS / "quickstart.yaml", NO_CLUSTER, hands_back)
    assert (ended.state, ended.reason) == (state, reason)
    assert ended.message.endswith("rank 0: killed; nothing is saved")
    assert [event.kind for event in events].count("leased") == 1


@pytest.mark.parametrize(
    ("steps", "done", "told"),
    [
        ([], 0, "nothing is saved"),
        ([], 1, "step 1 is not saved"),
        ([], 12, "steps 1 to 12 are not saved"),
        ([7, 14], 20, "steps 15 to 20 are not saved"),
        ([7, 14], 14, "saved up to step 14"),
        ([7, 14], 0, "saved up to step 14"),
    ],
)
def test_what_is_saved_is_said(tmp_path: Path, steps: list[int], done: int, told: str) -> None:
    for step in steps:
        write_atomically(tmp_path / "checkpoints" / name_of(step) / "manifest.json", "{}")
    assert saved(tmp_path, done) == told


class Trained(JobRunner):
    """Its training is done; Ray goes before the room is given back."""

    def _outcome(self, lease: Lease, outbox: Outbox) -> Ending:
        spec = load_spec(JOBS / "quickstart.yaml").spec
        ensure(self._folder, lease.job, spec)
        self._spec = spec
        self._source.running(lease, 1)
        self.reporter = Reporter(self._source, lease, outbox, self._tracked(spec), self._observer, ProgressLog())
        place = self._place.held = Place(self._agent.cluster, GangRequest(lease.job_id, (1, 1)), [NO_GROUP], 1)
        place.before_closing(NO_GROUP, fail)
        return Ending(Reason.COMPLETED, result={"weights": "model/weights.safetensors"})


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
