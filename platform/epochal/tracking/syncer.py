"""The syncer: makes MLflow match a job's folder.

``sync`` may be called at any time, as often as one likes, and be killed between any two of its requests: what it did is
remembered in ``sync_state.json`` after each, and a request that is repeated changes nothing, because

- the run is found by the tag ``epochal.job_id`` before one is created;
- MLflow identifies a metric by name, step, time and value, and all four come from the spool;
- parameters that the run has already are not sent, tags are overwritten with the same values;
- artifacts are overwritten under the same names, the model is found by its digest.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochal.tracking.connection import connect, is_missing, is_mlflow_failure, is_refused
from epochal.tracking.desired_run import JOB_ID_TAG, DesiredRun, artifacts_folder
from epochal.tracking.metric_spool import Point, read_lines, unsent_segments
from epochal.tracking.obstacle import BlockedError, Obstacle, described, no_mlflow, obstacle_of
from epochal.tracking.sent_trials import SweepTrials
from epochal.tracking.sync_batch import log_batch
from epochal.tracking.sync_experiment import check_experiment, find_or_create
from epochal.tracking.sync_model import send_model, storing, why_not_sent
from epochal.tracking.sync_state import (
    Outstanding,
    SyncState,
    artifact_files,
    fingerprint,
    folder_lock,
    outstanding,
    sync_state_path,
)
from epochal.tracking.sync_trials import TrialSyncer
from epochal.urls import without_password

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

MAX_METRICS = 1000
MAX_PARAMS = 100

BEING_SENT = "another process is sending it"


@dataclass(frozen=True)
class Synced:
    """What came of a ``sync``.

    ``left`` says what MLflow does not have yet and ``problem`` why, with the remedy; ``obstacle`` is the kind of what
    keeps MLflow from taking it, empty where it is only a matter of time. ``reachable`` is false where nothing of any
    job can be sent there now, and ``deleted`` true where somebody deleted the run or its experiment. ``refused`` is
    what MLflow will never take. ``has_news``: the job's ledger has not heard all of that.
    """

    run_id: str
    model_id: str
    left: str
    problem: str
    obstacle: str = ""
    reachable: bool = True
    deleted: bool = False
    refused: tuple[str, ...] = ()
    has_news: bool = False
    experiment_id: str = ""

    @property
    def pending(self) -> bool:
        return bool(self.left)


class _OutOfTimeError(Exception):
    """The caller does not want to wait any longer."""


def sync(
    uri: str,
    folder: Path,
    client: MlflowClient | None = None,
    until: float | None = None,
    afresh: bool = False,
    trials: SweepTrials | None = None,
) -> Synced:
    """Send to the tracking server at ``uri`` what it does not have yet of the job in ``folder``.

    Stops between two requests once ``time.monotonic()`` is past ``until``. Where the server fails, the result says so
    and what is left is sent by a later call. ``afresh`` sends the run's status and reason even if they were sent
    before. ``trials`` are the folder's, kept from an earlier call so that they are not read again from their beginning.

    Raises:
        NotFoundError: there is no desired run in ``folder``.
    """
    desired = DesiredRun.load(folder)
    try:
        return _sync(uri, desired, client, until, afresh, trials or SweepTrials(folder))
    except OSError as error:  # the disk of the folder is full, or away
        state, obstacle = SyncState.load(folder), obstacle_of(uri, error)
        return _synced(state, outstanding(folder, desired, state), str(obstacle), obstacle)


def _sync(
    uri: str, desired: DesiredRun, client: MlflowClient | None, until: float | None, afresh: bool, trials: SweepTrials
) -> Synced:
    folder = trials.folder
    with folder_lock(folder) as mine:
        state = SyncState.load(folder)
        if afresh:
            state.forget_status()
            trials.read()
            trials.forget_status()
        left = outstanding(folder, desired, state, trials)
        if not mine:
            return _synced(state, left, BEING_SENT)
        if not left and state.uri == without_password(uri) and state.settled:
            return _synced(state, left)
        problem, obstacle = "", None
        try:
            _send(Syncer(uri, trials, desired, state, until), client)
            state.met(None)
        except _OutOfTimeError:
            problem = "out of time"
        except Exception as error:
            if not is_mlflow_failure(error):
                raise
            obstacle = obstacle_of(uri, error)
            problem = str(obstacle)
            state.met(obstacle)
        state.uri = state.uri or without_password(uri)
        left = outstanding(folder, desired, state, trials)
        state.settled = "" if left else fingerprint(folder, trials)
        state.save(folder)
        return _synced(state, left, problem, obstacle)


def _send(syncer: Syncer, client: MlflowClient | None) -> None:
    client = client or connect(syncer.uri)
    try:
        syncer.send(client)
    except Exception as error:
        if is_refused(error):
            syncer.check_not_deleted()
        # The database behind the URI is another one than last time: send it everything.
        if not is_missing(error) or not syncer.lost_run():
            raise
        syncer.forget()
        syncer.send(client)


def _synced(state: SyncState, left: Outstanding, problem: str = "", obstacle: Obstacle | None = None) -> Synced:
    return Synced(
        run_id=state.run_id,
        experiment_id=state.experiment_id,
        model_id=state.model_id,
        left=str(left) if left else "",
        problem=problem if left else "",
        obstacle=obstacle.kind if obstacle else "",
        reachable=obstacle is None or not obstacle.whole,
        deleted=state.deleted,
        refused=tuple(state.refused),
        has_news=any(state.news()),
    )


class Syncer:
    """One pass over a job's folder."""

    def __init__(
        self, uri: str, trials: SweepTrials, desired: DesiredRun, state: SyncState, until: float | None
    ) -> None:
        self.uri = uri
        self._named = without_password(uri)
        self.folder = trials.folder
        self._trials = trials
        self.desired = desired
        self.state = state
        self._until = until
        self._client: Any = None

    def send(self, client: MlflowClient) -> None:
        self._client = client
        self._open_run()
        # One that goes on is open again before anything is added to it.
        if self.desired.status == "RUNNING":
            self._send_status()
        self._send_params()
        self._send_tags()
        self._send_dataset()
        self._send_metrics()
        # The status goes before what may take long, so that it is true even if the upload is cut off.
        self._send_status()
        self._send_artifacts()
        send_model(client, self.folder, self.state, self._saved)
        self._send_trials(client)

    def forget(self) -> None:
        """Start over, as if nothing had been sent."""
        # What the ledger has heard it need not hear again.
        self.state.__dict__.update(SyncState(uri=self._named, told=self.state.told).__dict__)
        self._trials.children = None

    def lost_run(self) -> bool:
        """Whether the run that we remember is not there."""
        try:
            self._client.get_run(self.state.run_id)
        except Exception as error:
            if is_missing(error):
                return True
            raise
        return False

    def _saved(self) -> None:
        self.state.save(self.folder)
        self._check_time()

    def _check_time(self) -> None:
        if self._until is not None and time.monotonic() > self._until:
            raise _OutOfTimeError

    def _open_run(self) -> None:
        state = self.state
        if state.run_id and (state.deleted or state.uri != self._named):
            if not self.lost_run():
                self.check_not_deleted()
            elif state.uri == self._named:
                remedy = f"remove {sync_state_path(self.folder)} to have it recorded in a new run"
                said = "its run was deleted in MLflow, for good"
                raise BlockedError(Obstacle("deleted for good", said, remedy, deleted=True))
            else:
                self.forget()
        state.uri = self._named
        if not state.run_id:
            # Others see where the job is sent (`agent.reconcile`), whatever comes of the requests.
            state.save(self.folder)
            state.experiment_id = find_or_create(self._client, self.uri, self.desired.experiment)
            run = self._find_run() or self._create_run()
            if not run.info.run_id:
                raise BlockedError(no_mlflow(self.uri, "it gives a run no id"))
            state.run_id, state.status = run.info.run_id, run.info.status
            state.params, state.tags = list(run.data.params), dict(run.data.tags)
        self._saved()

    def _find_run(self) -> Run | None:
        runs = self._client.search_runs(
            [self.state.experiment_id],
            f"tags.`{JOB_ID_TAG}` = '{self.desired.job_id}'",
            order_by=["attributes.start_time ASC"],
            max_results=1,
        )
        return runs[0] if runs else None

    def _create_run(self) -> Run:
        return self._client.create_run(  # type: ignore[no-any-return]
            self.state.experiment_id,
            start_time=int(self.desired.start_time * 1000),
            tags={JOB_ID_TAG: self.desired.job_id},  # the others are sent one by one where MLflow refuses any
            run_name=self.desired.name,
        )

    def _send_status(self) -> None:
        status = self.desired.status
        if self.state.status == status:
            return
        if status == "RUNNING":
            self._client.update_run(self.state.run_id, status=status)
        else:
            end = self.desired.end_time or time.time()
            self._client.set_terminated(self.state.run_id, status, end_time=int(end * 1000))
        self.state.status = status
        self._saved()

    def _send_params(self) -> None:
        from mlflow.entities import Param

        known = set(self.state.params)
        new = [Param(name, value) for name, value in self.desired.all_params().items() if name not in known]
        for start in range(0, len(new), MAX_PARAMS):
            chunk = new[start : start + MAX_PARAMS]
            self._log_batch("params", chunk)
            self.state.params.extend(param.key for param in chunk)
            self._saved()

    def _send_tags(self) -> None:
        from mlflow.entities import RunTag

        sent = self.state.tags
        tags = self.desired.all_tags() | self._trials.best_tags(self.desired, self.state.run_id)
        new = [RunTag(name, value) for name, value in tags.items() if sent.get(name) != value]
        for start in range(0, len(new), MAX_PARAMS):
            chunk = new[start : start + MAX_PARAMS]
            self._log_batch("tags", chunk)
            sent.update({tag.key: tag.value for tag in chunk})
            self._saved()

    def _send_dataset(self) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        used = self.desired.dataset
        if used is None or self.state.dataset == used.digest:
            return
        # MLflow's limits; the source may have 65,535 characters.
        dataset = Dataset(used.name[:500], used.digest[:36], "local", used.source[:65000])
        inputs = [DatasetInput(dataset, [InputTag("mlflow.data.context", used.context)])]
        try:
            self._client.log_inputs(self.state.run_id, inputs)
        except Exception as error:
            if not is_refused(error):
                raise
            self.check_not_deleted()
            self.state.refused.append(f"dataset {used.name}: {described(error)[:200]}")
        self.state.dataset = used.digest
        self._saved()

    def _send_metrics(self) -> None:
        for path, offset, size in list(unsent_segments(self.folder, self.state.offsets)):
            batch: list[Point] = []
            end = offset
            for line in read_lines(path, offset):
                if line.end > size:
                    break
                if batch and len(batch) + len(line.points) > MAX_METRICS:
                    self._send_points(path.name, batch, end)
                    batch = []
                batch.extend(line.points)
                end = line.end
            self._send_points(path.name, batch, end)

    def _send_points(self, segment: str, points: list[Point], end: int) -> None:
        from mlflow.entities import Metric

        for start in range(0, len(points), MAX_METRICS):
            self._log_batch("metrics", [Metric(*point) for point in points[start : start + MAX_METRICS]])
        self.state.offsets[segment] = end
        self._saved()

    def _send_trials(self, client: MlflowClient) -> None:
        from mlflow.entities import Metric

        state = self.state
        parent = (state.run_id, state.experiment_id)
        TrialSyncer(client, self._trials, self.desired, parent, state.refused, self._check_time).send()
        improvements = [Metric(*point) for point in self._trials.improvements(self.desired)]
        for start in range(state.improvements, len(improvements), MAX_METRICS):
            self._log_batch("metrics", improvements[start : start + MAX_METRICS])
        state.improvements = len(improvements)
        self._send_tags()

    def _log_batch(self, kind: str, entities: Sequence[Any]) -> None:
        """Log metrics, params or tags; where MLflow refuses a batch, all of it but what it refuses."""
        for key, why in log_batch(self._client, self.state.run_id, {kind: entities}, self.check_not_deleted):
            self.state.refused.append(f"{key}: {why}")

    def check_not_deleted(self) -> None:
        """
        Raises:
            BlockedError: the run is deleted, or its experiment, and all its runs with it.
        """
        run_id = self.state.run_id
        if run_id and self._client.get_run(run_id).info.lifecycle_stage == "deleted":
            check_experiment(self._client.get_experiment(self.state.experiment_id))
            remedy = f"`mlflow runs restore --run-id {run_id}` brings it back"
            raise BlockedError(Obstacle("deleted run", "its run was deleted in MLflow", remedy, deleted=True))

    def _send_artifacts(self) -> None:
        root = artifacts_folder(self.folder)
        for name, stamp in artifact_files(self.folder).items():
            if self.state.artifacts.get(name) == stamp:
                continue
            parent = Path(name).parent.as_posix()
            if why := why_not_sent(self._client, self.state, root / name, name, self.folder.parent):
                self.state.refused.append(f"artifact {name}: {why}")
            else:
                with storing(root / name, name):
                    self._client.log_artifact(self.state.run_id, str(root / name), None if parent == "." else parent)
            self.state.artifacts[name] = stamp
            self._saved()
