"""The desired runs of a sweep's trials: what the child runs should look like in MLflow.

They follow from what the controller knows of each trial. What has changed of it is appended to one journal a sweep,
``<job folder>/trials/runs.jsonl``, so that a change costs the same with ten trials and with ten thousand::

    {"trial":3,"at":1763683200.1,"state":"RUNNING","why":"","message":"","point":{"train.optimizer.lr":0.01}}
    {"trial":3,"at":1763683260.5,"state":"STOPPED","why":"","message":"","measured":[[1.0,0.93]]}

The metrics of a trial's training are in the spool of its own folder, ``<job folder>/trials/00003``.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from epochal.files import LineWriter, new_lines
from epochal.redaction import said
from epochal.tracking.desired_run import (
    JOB_ID_TAG,
    MAX_PARAM_VALUE,
    REASON_TAG,
    DesiredRun,
    Status,
    clean_key,
    cut,
    flatten,
    tag,
)
from epochal.tracking.metric_spool import Point

SWEEP_TAG = "epochal.sweep"
"""The id of the sweep's job. The tag of a job's own run is another, so that one run a job is found by that."""
TRIAL_TAG = "epochal.trial"
STATE_TAG = "epochal.trial_state"
PARENT_TAG = "mlflow.parentRunId"
OBJECTIVE = "objective"
"""The metric that every child has, whatever the objective is, at the lengths at which its trial was measured."""

_OVER: Mapping[str, Status] = MappingProxyType({"COMPLETED": "FINISHED", "STOPPED": "FINISHED", "FAILED": "FAILED"})
_SHARED = ("model.name", "data.name", "task.name", "objective.metric", "objective.mode", "train.seed")
"""What a reader compares trials of several sweeps by; all else that they share is on the parent."""
_OF_JOBS = (JOB_ID_TAG, "mlflow.runName")

_logger = logging.getLogger(__name__)


class Measured(Protocol):
    """As ``sweeps.trials.Measured``."""

    @property
    def length(self) -> float: ...

    @property
    def value(self) -> float: ...


class Trial(Protocol):
    """As ``sweeps.trials.Trial``."""

    @property
    def number(self) -> int: ...

    @property
    def point(self) -> Mapping[str, Any]: ...

    @property
    def state(self) -> str: ...

    @property
    def curve(self) -> Sequence[Measured]: ...

    @property
    def why(self) -> str: ...

    @property
    def message(self) -> str: ...


def trials_folder(folder: Path) -> Path:
    return folder / "trials"


def trial_folder(folder: Path, number: int) -> Path:
    """A trial's own folder: its spool, its checkpoints."""
    return trials_folder(folder) / f"{number:05d}"


def journal_path(folder: Path) -> Path:
    return trials_folder(folder) / "runs.jsonl"


@dataclass
class TrialRun:
    """What is known of one trial, and the run that it should have. Times are Unix seconds.

    ``changes`` counts the journal's lines about it. ``measured`` is the objective by length, with the time at which it
    was written down; ``points`` are the trial's points, each with the length it was chosen at: more than one where the
    trial scheduler changes parameters (PBT).
    """

    number: int
    start: float
    state: str = ""
    why: str = ""
    message: str = ""
    end: float = 0.0
    changes: int = 0
    measured: dict[float, tuple[float, float]] = field(default_factory=dict)
    points: list[tuple[float, float, Mapping[str, Any]]] = field(default_factory=list)

    def follow(self, line: Mapping[str, Any]) -> None:
        """Take over a line of the journal."""
        at = float(line["at"])
        self.changes += 1
        self.state, self.why, self.message = str(line["state"]), str(line["why"]), str(line["message"])
        self.end = at
        self.measured.update({float(length): (float(value), at) for length, value in line.get("measured", ())})
        if (point := line.get("point")) is not None:
            self.points.append((self.length, at, point))

    @property
    def length(self) -> float:
        return max(self.measured, default=0.0)

    @property
    def value(self) -> float:
        """The objective at the greatest length; NaN where it was not measured."""
        return self.measured[self.length][0] if self.measured else math.nan

    @property
    def is_over(self) -> bool:
        return self.state in _OVER

    def status(self, sweep: Status) -> Status:
        """The child's status; ``sweep`` is the parent's: with it, trials end that were waiting to be promoted."""
        closed: Status = "FINISHED" if sweep == "FINISHED" else "KILLED"
        return _OVER.get(self.state) or ("RUNNING" if sweep == "RUNNING" else closed)

    def ended(self, sweep: DesiredRun) -> float:
        """When it did, where its status says so."""
        return self.end if self.is_over else sweep.end_time or self.end

    def name(self, sweep: DesiredRun) -> str:
        return f"{sweep.name}-trial-{self.number}"

    def params(self, sweep: DesiredRun) -> dict[str, str]:
        """The parameters as MLflow has them: what is searched, as it was at first, and what trials are compared by."""
        shared = {name: sweep.params[name] for name in _SHARED if name in sweep.params}
        searched = flatten(self.points[0][2]) if self.points else {}
        return {clean_key(name): cut(value, MAX_PARAM_VALUE) for name, value in (shared | searched).items()}

    def tags(self, sweep: DesiredRun) -> dict[str, str]:
        """The tags as MLflow has them, beside its ``identity``."""
        changed = {name: self.points[-1][2].get(name) for name in self._changed()}
        own = {
            **sweep.all_tags(),
            **{clean_key(f"hparam.{name}"): value for name, value in flatten(changed).items()},
            "mlflow.note.content": self.message,
            "epochal.architecture": sweep.params.get("model.name", ""),
            "epochal.dataset": sweep.params.get("data.name", ""),
            STATE_TAG: self.state,
            REASON_TAG: self.why,
        }
        return {name: tag(value) for name, value in own.items() if name not in _OF_JOBS}

    def identity(self, sweep: DesiredRun, parent_id: str) -> dict[str, str]:
        """The tags that a child run is found by."""
        return {PARENT_TAG: parent_id, SWEEP_TAG: sweep.job_id, TRIAL_TAG: str(self.number)}

    def metrics(self) -> list[Point]:
        """The objective, and the parameters that change, each at the length, in whole epochs or steps."""
        objective = [Point(OBJECTIVE, value, _ms(at), round(length)) for length, (value, at) in self.measured.items()]
        changed = self._changed()
        return objective + [
            Point(clean_key(f"hparam/{name}"), float(point[name]), _ms(at), round(length))
            for length, at, point in self.points
            for name in changed
            if isinstance(point.get(name), int | float)
        ]

    def _changed(self) -> list[str]:
        """The searched fields that were given another value since the first one."""
        first = self.points[0][2] if self.points else {}
        return sorted({name for _, _, point in self.points for name in point if point[name] != first.get(name)})


class TrialRuns:
    """Writes down what becomes of a sweep's trials. One writer a sweep; MLflow follows, by the job's ``Tracker``."""

    def __init__(self, folder: Path) -> None:
        self._path = journal_path(folder)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._known = Journal(folder)
        self._known.read()
        with self._path.open("ab") as file:
            file.truncate(self._known.offset)  # a process that was killed may have left half a line
        self._lines = LineWriter(self._path)

    def record(self, trial: Trial) -> None:
        """Write down what is new of this trial; nothing where nothing is, so that a replay adds nothing.

        A trial's run begins with its first segment.
        """
        known = self._known.runs.get(trial.number)
        if known is None and trial.state == "WAITING":
            return
        stands = {"state": str(trial.state), "why": trial.why, "message": trial.message}
        news: dict[str, Any] = {}
        # By what is written of a value: one that early stopping replaces is news, and NaN beside NaN is none.
        written = {length: repr(value) for length, (value, _) in known.measured.items()} if known else {}
        if added := [
            [one.length, one.value] for one in trial.curve if written.get(one.length) != repr(float(one.value))
        ]:
            news["measured"] = added
        if known is None or not known.points or dict(trial.point) != known.points[-1][2]:
            news["point"] = dict(trial.point)
        if not news and known and (known.state, known.why, known.message) == tuple(stands.values()):
            return
        line = {"trial": trial.number, "at": round(time.time(), 3), **stands, **news}
        data = json.dumps(line, separators=(",", ":"), default=str).encode() + b"\n"
        self._known.follow(data)
        self._lines.write(data)


class Journal:
    """The journal, read as far as it goes, and further each time."""

    def __init__(self, folder: Path) -> None:
        self._path = journal_path(folder)
        self.offset = 0
        self.runs: dict[int, TrialRun] = {}
        self._measured: list[tuple[float, float]] = []
        """Values and when each was, in the order in which they were written down."""

    def read(self) -> None:
        for raw in new_lines(self._path, self.offset):
            self.offset += len(raw)
            self.follow(raw)

    def follow(self, raw: bytes) -> None:
        try:
            line = json.loads(raw)
            number = int(line["trial"])
            self.runs.setdefault(number, TrialRun(number, float(line["at"]))).follow(line)
            self._measured.extend((float(value), float(line["at"])) for _, value in line.get("measured", ()))
        except (ValueError, KeyError, TypeError) as error:  # a disk that lost power
            _logger.warning("a line of %s cannot be read: %s", self._path, said(error))

    def best(self, mode: str) -> TrialRun | None:
        """The trial whose newest value is the best, of those that trained to the end where any did."""
        measured = [run for run in self.runs.values() if run.state != "FAILED" and not math.isnan(run.value)]
        order = lambda run: (run.state != "COMPLETED", _sign(mode) * run.value, run.number)  # noqa: E731
        return min(measured, key=order, default=None)

    def improvements(self, mode: str) -> list[Point]:
        """The best objective so far, wherever it got better; the step counts what was measured."""
        found: list[Point] = []
        for step, (value, at) in enumerate(self._measured, 1):
            if not math.isnan(value) and (not found or _sign(mode) * value < _sign(mode) * found[-1].value):
                found.append(Point(f"best/{OBJECTIVE}", value, _ms(at), step))
        return found


def _sign(mode: str) -> int:
    return -1 if mode == "max" else 1


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
