"""The part of ``sync`` that makes MLflow's child runs match a sweep's trials.

A trial that is over before it is looked at, as short ones are, costs three requests: its run, all that is known of it,
its end. Repeating any of them changes nothing, as with a job's own run; a child is found by its tags.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from epochal.tracking.connection import is_missing, is_refused
from epochal.tracking.desired_run import DesiredRun
from epochal.tracking.metric_spool import Point, read_lines, unsent_segments
from epochal.tracking.sent_trials import SentTrial, SweepTrials
from epochal.tracking.sync_batch import log_batch
from epochal.tracking.trial_runs import PARENT_TAG, SWEEP_TAG, TRIAL_TAG, TrialRun, trial_folder

MAX_ENTITIES = 1000
_MAX_TAGS = 100
"""Of one request; of parameters as many."""
PASS_SECONDS = 5.0
"""What one pass over the trials may take, so that the sweep's own run does not wait for a long one."""
_PAGE = 1000


class _DeletedError(Exception):
    """Somebody deleted the child run."""


class TrialSyncer:
    """One pass over a sweep's trials. ``parent_id`` is the sweep's own run; ``refused`` gets what MLflow never takes.

    ``in_time`` is called after each step that is remembered, and may raise to stop there.
    """

    def __init__(
        self,
        client: Any,
        trials: SweepTrials,
        sweep: DesiredRun,
        parent: tuple[str, str],
        refused: list[str],
        in_time: Callable[[], None],
    ) -> None:
        self._client = client
        self._trials = trials
        self._sweep = sweep
        self._parent_id, self._experiment_id = parent
        self._refused = refused
        self._in_time = in_time

    def send(self) -> None:
        """Send what is left, the oldest trials first."""
        until = time.monotonic() + PASS_SECONDS
        for run in sorted(self._trials.pending(self._sweep, self._parent_id), key=lambda run: run.number):
            sent = self._trials.sent(run.number, self._parent_id) or self._opened(run)
            try:
                self._send(run, sent)
            except Exception as error:
                if not isinstance(error, _DeletedError) and not is_missing(error):
                    raise
                self._client.get_run(self._parent_id)  # which is missing too where the database is another one
                sent.deleted = True
                self._noted(run, sent)
            if time.monotonic() > until:
                return

    def _opened(self, run: TrialRun) -> SentTrial:
        """The trial's child run: one that an earlier request made whose answer was lost, or a new one."""
        if self._trials.children is None:
            self._trials.children = dict(self._children())
        if known := self._trials.children.get(run.number):
            sent = SentTrial(known)
        else:
            children, self._trials.children = self._trials.children, None  # where no answer comes
            sent = self._created(run)
            self._trials.children = children
        self._noted(run, sent)
        return sent

    def _children(self) -> Iterator[tuple[int, str]]:
        """Those that there are, by trial. An older one comes later: what was made twice is then the older one's."""
        condition = f"tags.`{PARENT_TAG}` = '{self._parent_id}' AND tags.`{SWEEP_TAG}` = '{self._sweep.job_id}'"
        token: str | None = None
        while True:
            page = self._client.search_runs(
                [self._experiment_id],
                condition,
                order_by=["attributes.start_time DESC"],
                max_results=_PAGE,
                page_token=token,
            )
            yield from ((int(run.data.tags[TRIAL_TAG]), run.info.run_id) for run in page if TRIAL_TAG in run.data.tags)
            token = page.token
            if not token:
                return

    def _created(self, run: TrialRun) -> SentTrial:
        """A new child run, with its tags where MLflow refuses none; a request for those alone costs as much."""
        tags, identity = run.tags(self._sweep), run.identity(self._sweep, self._parent_id)
        try:
            return SentTrial(self._create(run, tags | identity), tagged=run.changes)
        except Exception as error:
            if not is_refused(error):
                raise
            return SentTrial(self._create(run, identity))

    def _create(self, run: TrialRun, tags: dict[str, str]) -> str:
        start = int(run.start * 1000)
        made = self._client.create_run(self._experiment_id, start, tags, run_name=run.name(self._sweep))
        return str(made.info.run_id)

    def _send(self, run: TrialRun, sent: SentTrial) -> None:
        from mlflow.entities import Param, RunTag

        changes, status = run.changes, run.status(self._sweep.status)
        batch: dict[str, list[Any]] = {}
        points: list[Point] = []
        if sent.tagged != changes:
            batch["tags"] = [RunTag(*pair) for pair in run.tags(self._sweep).items()]
        if sent.changes != changes:
            points = run.metrics()
        if not sent.has_params:
            batch["params"] = [Param(*pair) for pair in run.params(self._sweep).items()]
        for spooled, offsets in _spooled(trial_folder(self._trials.folder, run.number), sent.offsets):
            if len(points) + len(spooled) > MAX_ENTITIES - sum(map(len, batch.values())):
                self._log(run, sent, batch, points)
                self._noted(run, sent)
                batch, points = {}, []
            points, sent.offsets = points + spooled, offsets
        self._log(run, sent, batch, points)
        sent.changes, sent.tagged, sent.has_params = changes, changes, True
        self._noted(run, sent)
        if sent.status != status:
            self._send_status(run, sent.run_id, status)
            sent.status = status
            self._noted(run, sent)

    def _log(self, run: TrialRun, sent: SentTrial, batch: dict[str, list[Any]], points: list[Point]) -> None:
        from mlflow.entities import Metric

        first = {kind: entities[:_MAX_TAGS] for kind, entities in batch.items()}
        room = MAX_ENTITIES - sum(map(len, first.values()))
        metrics = [Metric(*point) for point in points]
        parts = [{**first, "metrics": metrics[:room]}]
        for kind, entities in batch.items():
            parts += [{kind: entities[at : at + _MAX_TAGS]} for at in range(_MAX_TAGS, len(entities), _MAX_TAGS)]
        parts += [{"metrics": metrics[at : at + MAX_ENTITIES]} for at in range(room, len(metrics), MAX_ENTITIES)]
        for part in parts:
            for key, why in log_batch(self._client, sent.run_id, part, lambda: self._check_not_deleted(sent.run_id)):
                if not any(known.startswith(f"{key} of trial") for known in self._refused):
                    self._refused.append(f"{key} of trial {run.number}: {why}")

    def _send_status(self, run: TrialRun, run_id: str, status: str) -> None:
        if status != "RUNNING":
            self._client.set_terminated(run_id, status, end_time=int(run.ended(self._sweep) * 1000))
        elif self._client.get_run(run_id).info.status != status:
            self._client.update_run(run_id, status=status)

    def _check_not_deleted(self, run_id: str) -> None:
        if self._client.get_run(run_id).info.lifecycle_stage == "deleted":
            raise _DeletedError

    def _noted(self, run: TrialRun, sent: SentTrial) -> None:
        self._trials.note(run.number, sent, self._parent_id)
        self._in_time()


def _spooled(folder: Path, offsets: dict[str, int]) -> Iterator[tuple[list[Point], dict[str, int]]]:
    """What a trial's spool has beyond ``offsets``, about 100 points at a time, and the offsets behind them."""
    for path, offset, size in unsent_segments(folder, offsets):
        points: list[Point] = []
        end = offset
        for line in read_lines(path, offset):
            if line.end > size:
                break
            points.extend(line.points)
            end = line.end
            if len(points) >= 100:
                offsets = {**offsets, path.name: end}
                yield points, offsets
                points = []
        if end != offsets.get(path.name):
            offsets = {**offsets, path.name: end}
            yield points, offsets
