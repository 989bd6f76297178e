"""What MLflow has of a sweep's trials, and so what is left. Nothing here imports mlflow.

It is kept in ``<job folder>/trials/sent.jsonl``: a line a trial, each time something of it was sent.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from epochal.files import new_lines, write_atomically
from epochal.redaction import said
from epochal.tracking.desired_run import DesiredRun, clean_key, flatten, tag
from epochal.tracking.metric_spool import Point, segments, unsent_segments
from epochal.tracking.trial_runs import Journal, TrialRun, trial_folder, trials_folder

BEST_TRIAL_TAG = "epochal.best_trial"
BEST_RUN_TAG = "epochal.best_run"

_logger = logging.getLogger(__name__)


@dataclass
class SentTrial:
    """What MLflow has of one trial: ``changes`` of the journal, ``offsets`` in bytes of its spool's segments.

    ``tagged``: the tags are those after so many changes. ``deleted``: somebody deleted the child run, and meant it so.
    """

    run_id: str
    changes: int = 0
    tagged: int = 0
    status: str = ""
    offsets: dict[str, int] = field(default_factory=dict)
    has_params: bool = False
    deleted: bool = False


class SweepTrials:
    """A sweep's trials, what is to be in MLflow of them and what is, read further each time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = trials_folder(folder) / "sent.jsonl"
        self._offset = 0
        self._lines = 0
        self._parent = ""
        self.children: dict[int, str] | None = None
        """Child runs that MLflow was seen to have, by trial; None where one may be there that is not known of."""
        self._sent: dict[int, SentTrial] = {}
        self._journal = Journal(folder)

    def read(self) -> None:
        self._journal.read()
        self.read_sent()

    def read_sent(self) -> None:
        """Only what MLflow has."""
        if self._path.exists() and self._path.stat().st_size < self._offset:  # whoever sends has written it anew
            self._offset = self._lines = 0
        for raw in new_lines(self._path, self._offset):
            self._offset += len(raw)
            self._lines += 1
            try:
                self._follow(json.loads(raw))
            except (ValueError, KeyError, TypeError) as error:  # a disk that lost power
                _logger.warning("a line of %s cannot be read: %s", self._path, said(error))

    @property
    def run_ids(self) -> dict[int, str]:
        """The child runs, by trial."""
        return {number: sent.run_id for number, sent in self._sent.items()}

    def pending(self, sweep: DesiredRun, parent_id: str) -> Iterator[TrialRun]:
        """Those that MLflow does not have whole."""
        known = self._sent if parent_id == self._parent else {}
        return (run for run in self._journal.runs.values() if self._is_pending(run, known.get(run.number), sweep))

    def best_tags(self, sweep: DesiredRun, parent_id: str) -> dict[str, str]:
        """Tags of the sweep's own run that name its best trial, once that has a run, and the point of it."""
        best = self._journal.best(sweep.params.get("objective.mode", "min"))
        sent = self.sent(best.number, parent_id) if best else None
        if best is None or sent is None:
            return {}
        point = {clean_key(f"best.{name}"): value for name, value in flatten(best.points[-1][2]).items()}
        tags = {BEST_TRIAL_TAG: str(best.number), BEST_RUN_TAG: sent.run_id, **point}
        return {name: tag(value) for name, value in tags.items()}

    def improvements(self, sweep: DesiredRun) -> list[Point]:
        """The sweep's best objective so far, wherever it got better."""
        return self._journal.improvements(sweep.params.get("objective.mode", "min"))

    def open_spools(self) -> Iterator[Path]:
        """The segments that may still grow; of a sweep that is over, none does."""
        if DesiredRun.load(self.folder).status != "RUNNING":
            return
        self.read()
        for run in self._journal.runs.values():
            if not run.is_over:
                yield from segments(trial_folder(self.folder, run.number))

    def sent(self, number: int, parent_id: str) -> SentTrial | None:
        return self._sent.get(number) if parent_id == self._parent else None

    def note(self, number: int, sent: SentTrial, parent_id: str) -> None:
        """Remember what was sent.

        Raises:
            OSError: the disk does not take it.
        """
        data = self._line(number, sent, parent_id)
        self._follow(json.loads(data))
        self._lines += 1
        if self._lines > 1000 + 4 * len(self._sent):  # trials that are followed for hours
            data = b"".join(self._line(number, sent, parent_id) for number, sent in self._sent.items())
            write_atomically(self._path, data)
            self._lines, self._offset = len(self._sent), len(data)
            return
        with self._path.open("ab") as file:
            file.truncate(self._offset)  # half a line of a process that was killed
            file.write(data)
        self._offset += len(data)

    def _line(self, number: int, sent: SentTrial, parent_id: str) -> bytes:
        line = {"parent": parent_id, "trial": number, **asdict(sent)}
        return json.dumps(line, separators=(",", ":")).encode() + b"\n"

    def forget_status(self) -> None:
        """Have it sent again of those that are open; see ``SyncState.forget_status``."""
        for number, sent in self._sent.items():
            run = self._journal.runs.get(number)
            if run and not run.is_over:
                sent.status = ""

    def _follow(self, line: dict[str, Any]) -> None:
        parent, number = str(line.pop("parent")), int(line.pop("trial"))
        if parent != self._parent:  # another database, where there is nothing yet
            self._parent = parent
            self._sent.clear()
        known = {name: value for name, value in line.items() if name in SentTrial.__dataclass_fields__}
        self._sent[number] = SentTrial(**known)

    def _is_pending(self, run: TrialRun, sent: SentTrial | None, sweep: DesiredRun) -> bool:
        if sent is None:
            return True
        if sent.deleted:
            return False
        if sent.changes != run.changes or sent.status != run.status(sweep.status):
            return True
        return not run.is_over and any(unsent_segments(trial_folder(self.folder, run.number), sent.offsets))
