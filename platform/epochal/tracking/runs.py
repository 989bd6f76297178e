"""The read side: list, show and compare what MLflow has recorded."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from epochal.errors import NotFoundError, UsageError, did_you_mean, some
from epochal.redaction import said
from epochal.tracking.connection import answering, connect, experiment_names, is_refused, is_sqlite, sqlite_path
from epochal.tracking.desired_run import JOB_ID_TAG, REASON_TAG
from epochal.tracking.metric_spool import Point
from epochal.tracking.trial_runs import OBJECTIVE, PARENT_TAG, STATE_TAG, SWEEP_TAG, TRIAL_TAG

if TYPE_CHECKING:
    from mlflow.entities import Run

_PAGE = 200
_MOST_AT_ONCE = 1000
_SEARCHED = 2000
"""How far back a run is looked for by a part of its id."""
_SHORT = 8


@dataclass(frozen=True)
class RunInfo:
    """One run. Times are Unix seconds; ``metrics`` are the last values; tags that begin with ``mlflow.`` are left out.

    ``job`` is the id of the job that it records; empty for runs that are not Epochal's.
    """

    id: str
    name: str
    job: str
    experiment: str
    experiment_id: str
    status: str
    reason: str
    start: float
    end: float | None
    metrics: dict[str, float]
    params: dict[str, str]
    tags: dict[str, str]
    description: str
    models: tuple[str, ...]

    @property
    def short_id(self) -> str:
        return self.id[:_SHORT]

    @property
    def seconds(self) -> float | None:
        """How long it ran; None where it has not ended."""
        return None if self.end is None else self.end - self.start

    @property
    def objective(self) -> tuple[str, str] | None:
        """The metric that the run is judged by, and ``min`` or ``max``."""
        metric, mode = self.params.get("objective.metric"), self.params.get("objective.mode")
        return (metric, mode) if metric and mode else None


@dataclass(frozen=True)
class Extent:
    """The values of one metric over a run: the last, and the lowest and the highest with their steps.

    Values that are NaN are left out; ``last`` is NaN where there is no other.
    """

    last: float
    low: float
    low_step: int
    high: float
    high_step: int

    def best(self, mode: str) -> tuple[float, int]:
        """The best value and its step, ``mode`` being ``min`` or ``max``."""
        return (self.low, self.low_step) if mode == "min" else (self.high, self.high_step)


@dataclass(frozen=True)
class Comparison:
    """Runs beside each other: a value for each run, in the order of ``runs``; None where a run has none.

    ``params`` are only those that differ.
    """

    runs: tuple[RunInfo, ...]
    metrics: dict[str, tuple[float | None, ...]]
    params: dict[str, tuple[str | None, ...]]


def list_runs(
    uri: str, experiment: str | None = None, job: str | None = None, status: str | None = None, limit: int = 50
) -> list[RunInfo]:
    """The newest runs first; of a sweep its own, and not those of its trials.

    Raises:
        NotFoundError: there is no such experiment.
        UnreachableError: the tracking server does not answer.
    """
    conditions = []
    if job:
        conditions.append(f"tags.`{JOB_ID_TAG}` = '{_quoted(job)}'")
    if status:
        conditions.append(f"attributes.status = '{_quoted(status.upper())}'")
    found = _search(uri, " AND ".join(conditions), experiment, sys.maxsize)
    return list(islice((run for run in found if SWEEP_TAG not in run.tags), limit))


def trial_runs(uri: str, sweep: RunInfo) -> list[RunInfo]:
    """The runs of a sweep's trials in the order of ``ledger.sweep_values.best_first``: by the objective, those that
    trained to their full length first; those without a number, and those that FAILED, last.

    Raises:
        UsageError: it has none.
        UnreachableError: the tracking server does not answer.
    """
    condition = f"tags.`{PARENT_TAG}` = '{_quoted(sweep.id)}'"
    found = list(_search(uri, condition, sweep.experiment, sys.maxsize, page=_MOST_AT_ONCE))
    if not found:
        hint = "`epochal runs list` shows them; a sweep's run is found by its job, its id or its name"
        raise UsageError(f"the run {sweep.name!r} has no trials", hint)
    sign = -1.0 if sweep.params.get("objective.mode") == "max" else 1.0

    def rank(run: RunInfo) -> tuple[bool, bool, float, int]:
        value, number = sign * run.metrics.get(OBJECTIVE, math.nan), int(run.tags.get(TRIAL_TAG, 0))
        if math.isnan(value) or run.status == "FAILED":
            return True, False, 0.0, number
        return False, run.tags.get(STATE_TAG) != "COMPLETED", value, number

    return sorted(found, key=rank)


def get_run(uri: str, name: str) -> RunInfo:
    """The run with this id or unique beginning of one, or the newest of the job or run with this name.

    Raises:
        NotFoundError: there is none.
        UsageError: several ids begin so.
        UnreachableError: the tracking server does not answer.
    """
    quoted = _quoted(name)
    for condition in (f"tags.`{JOB_ID_TAG}` = '{quoted}'", f"attributes.run_name = '{quoted}'"):
        found = next(_search(uri, condition, None, 1), None)
        # A name with quotes in it was asked for without them.
        if found and name in (found.job, found.name):
            return found
    runs = list(_search(uri, "", None, _SEARCHED))
    matches = [run for run in runs if run.id.startswith(name) or (run.job and run.job.startswith(name))]
    if len(matches) > 1 and name not in {run.id for run in matches}:
        shown = some([f"{run.short_id} ({run.name})" for run in matches], 5)
        raise UsageError(f"{len(matches)} runs begin with {name!r}: {shown}", "give more of the id")
    if not matches:
        known = tuple(dict.fromkeys(part for run in runs for part in (run.name, run.short_id, run.job) if part))
        hint = did_you_mean(name, known) or "`epochal runs list` shows them"
        older = f"; one older than the newest {_SEARCHED:,} is found by its job's whole id, or its name"
        hint += older if len(runs) == _SEARCHED else ""
        raise NotFoundError("run", name, known, hint)
    return next((run for run in matches if run.id == name), matches[0])


def compare(uri: str, names: Sequence[str]) -> Comparison:
    """Put runs beside each other: their last metrics, the best of what they are judged by, the parameters that differ.

    Raises:
        NotFoundError, UsageError, UnreachableError: as ``get_run``.
    """
    runs = [get_run(uri, name) for name in names]
    best: list[dict[str, float]] = []
    for run in runs:
        metric, mode = run.objective or ("", "")
        reached = extent(metric_history(uri, run.id, metric)) if metric else None
        best.append({f"best {metric}": reached.best(mode)[0]} if reached else {})
    return compared(runs, best)


def compared(runs: Sequence[RunInfo], best: Sequence[Mapping[str, float]] = ()) -> Comparison:
    """The comparison of runs that are at hand; ``best`` adds rows of metrics, a mapping for each run."""
    rows = [{name: value for name, value in run.metrics.items() if not name.startswith("system/")} for run in runs]
    metrics = sorted({name for row in rows for name in row}, key=_metric_order)
    added = list(dict.fromkeys(name for row in best for name in row))
    params = sorted({name for run in runs for name in run.params})
    values = {name: tuple(run.params.get(name) for run in runs) for name in params}
    return Comparison(
        runs=tuple(runs),
        metrics={name: tuple(row.get(name) for row in best) for name in added}
        | {name: tuple(row.get(name) for row in rows) for name in metrics},
        params={name: row for name, row in values.items() if len(set(row)) > 1},
    )


def metric_history(uri: str, run_id: str, metric: str) -> list[Point]:
    """Every value of a metric, by step.

    Raises:
        UnreachableError: the tracking server does not answer.
    """
    with answering_or_refused(uri):
        values = connect(uri).get_metric_history(run_id, metric)
    points = [Point(value.key, float(value.value), int(value.timestamp), int(value.step)) for value in values]
    return sorted(points, key=lambda point: (point.step, point.timestamp))


def extent(history: Sequence[Point]) -> Extent | None:
    """The last, lowest and highest value of a history; None where it is empty."""
    if not history:
        return None
    real = [point for point in history if not math.isnan(point.value)] or list(history)
    low = min(real, key=lambda point: point.value)
    high = max(real, key=lambda point: point.value)
    return Extent(real[-1].value, low.value, low.step, high.value, high.step)


def main_metrics(metrics: Mapping[str, float]) -> list[str]:
    """The names of the metrics about the training itself, validation first."""
    return sorted((name for name in metrics if name.startswith(("train/", "val/", "test/"))), key=_metric_order)


def _metric_order(name: str) -> tuple[int, str]:
    groups = ("val/", "train/", "test/", "perf/", "system/")
    return next((index for index, group in enumerate(groups) if name.startswith(group)), 3), name


def _search(uri: str, condition: str, experiment: str | None, limit: int, page: int = _PAGE) -> Iterator[RunInfo]:
    """Runs that fulfil MLflow's filter ``condition``, the newest first."""
    if is_sqlite(uri) and not sqlite_path(uri).exists():
        return
    with answering_or_refused(uri):
        client = connect(uri)
        experiments = experiment_names(client)
        if experiment is not None:
            named = {key: name for key, name in experiments.items() if name == experiment}
            if not named:
                raise NotFoundError("experiment", experiment, tuple(experiments.values()))
            experiments = named
        token: str | None = None
        while limit > 0:
            found = client.search_runs(
                list(experiments),
                condition,
                max_results=min(limit, page),
                order_by=["attributes.start_time DESC"],
                page_token=token,
            )
            yield from (_info(run, experiments) for run in found)
            limit, token = limit - len(found), found.token
            if not token:
                return


def _info(run: Run, experiments: Mapping[str, str]) -> RunInfo:
    info, tags = run.info, run.data.tags
    outputs = run.outputs.model_outputs if run.outputs else []
    return RunInfo(
        id=info.run_id,
        name=info.run_name or "",
        job=tags.get(JOB_ID_TAG, ""),
        experiment=experiments.get(info.experiment_id, info.experiment_id),
        experiment_id=info.experiment_id,
        status=info.status,
        reason=tags.get(REASON_TAG, ""),
        start=info.start_time / 1000,
        # A run that was opened again keeps the time at which it had ended.
        end=None if info.end_time is None or info.status in ("RUNNING", "SCHEDULED") else info.end_time / 1000,
        metrics={name: float(value) for name, value in sorted(run.data.metrics.items())},
        params=dict(sorted(run.data.params.items())),
        tags={name: value for name, value in sorted(tags.items()) if not name.startswith("mlflow.")},
        description=tags.get("mlflow.note.content", ""),
        models=tuple(output.model_id for output in outputs),
    )


def _quoted(text: str) -> str:
    """Safe inside the quotes of a filter; MLflow's language has no escape for them."""
    return text.replace("'", "").replace("`", "")


@contextmanager
def answering_or_refused(uri: str) -> Iterator[None]:
    """Failures of the tracking server as our own errors, what it does not accept among them."""
    with answering(uri):
        try:
            yield
        except Exception as error:
            if is_refused(error):
                raise UsageError(f"MLflow does not accept this: {said(error)}") from error
            raise
