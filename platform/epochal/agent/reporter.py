"""Where an attempt's news go: to the ledger by way of the outbox, to the desired run, to the observer."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import partial

from epochal.agent.observer import Observer
from epochal.agent.outbox import Outbox
from epochal.agent.port import JobSource
from epochal.agent.progress import ProgressLog
from epochal.agent.retry_policy import Ending
from epochal.agent.run_tracking import RunTracking
from epochal.agent.sweep_progress import SweepProgress
from epochal.engine.events import Started
from epochal.ledger.states import EventKind, Reason
from epochal.ledger.values import Lease
from epochal.settings import tracking_page
from epochal.sweeps.trials import Trial, TrialState
from epochal.tracking.desired_run import CheckpointPointer
from epochal.tracking.model import FALLBACK_TAG, FORMAT_TAG
from epochal.training.control import Noted, Phase, Prepared, Progress, Report, Saved, SetAside
from epochal.training.data_summary import MOST_SHOWN


class Reporter:
    """Tells of one attempt (``program.Tell``). ``log`` is the job's, over all of its attempts.

    ``progress`` and ``saved`` are the newest reports of their kind, ``step`` is the last that a worker has done.
    """

    def __init__(
        self,
        source: JobSource,
        lease: Lease,
        outbox: Outbox,
        tracking: RunTracking,
        observer: Observer,
        log: ProgressLog,
    ) -> None:
        self._source = source
        self._lease = lease
        self._outbox = outbox
        self._tracking = tracking
        self._observer = observer
        self._log = log
        self.progress: Progress | None = None
        self.saved: Saved | None = None
        self.step = 0
        self._notes: list[str] = []
        self._noting = threading.Lock()
        self._bests: set[int] = set()
        tracking.notice = self._tracked  # last: the tracker's thread may call it at once

    def started(self, world_size: int, ranks: Sequence[Started]) -> None:
        workers = {str(one.rank): f"{one.host}:{one.pid} {one.device}" for one in ranks}
        self._outbox.tell(partial(self._source.running, self._lease, world_size, {"workers": workers}))
        self._tracking.update(tags={"epochal.world_size": str(world_size)})

    def log(self, rank: int, text: str, begun: str) -> None:
        self._observer.log(rank, text, begun)

    def reached(self, step: int, phase: Phase | None) -> None:
        """Reports come now and then: of a training that is stuck, what its workers reached is told all the same."""
        if phase is not None:
            self._log.does(phase)
        self.step = max(self.step, step)
        if self._log.reached(step, phase):
            self._outbox.progress(self._log.document())

    def report(self, report: Report) -> None:
        if isinstance(report, Progress):
            self._progressed(report)
        elif isinstance(report, Saved):
            self._saved(report)
        elif isinstance(report, SetAside):
            self._set_aside(report)
        elif isinstance(report, Noted):
            self.notice(report.note)
        elif isinstance(report, Prepared):
            self._tracking.prepared(report.data, report.parameters)
            told = report.data.first(MOST_SHOWN).to_dict()
            self._outbox.tell(partial(self._source.set_data, self._lease, told))

    def swept(self, progress: SweepProgress) -> None:
        """How a sweep stands."""
        self._observer.sweep(progress)
        self._log.does("train" if progress.count(TrialState.RUNNING) or progress.done else "setup")
        self._outbox.progress(progress.document())
        if progress.best is not None:
            self._tracking.start()
            self._told_best(progress.best, progress.objective.metric)
        self._tell_run()

    def of_trial(self, trial: int | None, report: Report) -> None:
        """What the training of a trial tells: its checkpoints and its progress are its own business."""
        if isinstance(report, SetAside | Noted | Prepared):
            self.report(report)

    def notice(self, text: str) -> None:
        with self._noting:  # slots of a sweep have a thread each, and two notes of one key would be one
            if text in self._notes:  # each trial of a sweep says it
                return
            self._notes.append(text)
            key = f"noted-{self._lease.epoch}-{len(self._notes)}"
            self._tracking.update(tags={"epochal.notes": "; ".join(self._notes)})
        self._observer.notice(text)
        self._outbox.tell(partial(self._source.note, self._lease, EventKind.NOTED, text, key=key))

    def packaging(self) -> None:
        """The training is done; what follows may take as long as a short one did."""
        message, key = "packaging the model for MLflow", f"packaging-{self._lease.epoch}"
        self._observer.notice(message)
        self._outbox.tell(partial(self._source.note, self._lease, EventKind.PACKAGING, message, key=key))

    def packaged(self, ending: Ending) -> None:
        """What came of packaging the model."""
        if ending.reason is Reason.COMPLETED:
            self._tracking.update(tags=ending.result)
            return
        message = f"model/weights.safetensors is saved, but the model was not packaged for MLflow: {ending.message}"
        self._observer.notice(message)
        key = f"not-packaged-{self._lease.epoch}"
        self._outbox.tell(partial(self._source.note, self._lease, EventKind.MODEL_NOT_PACKAGED, message, key=key))
        self._tracking.update(tags={FORMAT_TAG: "none", FALLBACK_TAG: ending.message})

    def _tracked(self, message: str) -> None:
        """From the tracker's thread, and not by the outbox, which may be over before MLflow has been asked at all."""
        key = f"tracking-{self._lease.epoch}-{time.time()}"
        self._source.note(self._lease, EventKind.TRACKING, message, key=key)
        self._observer.notice(message)

    def _saved(self, saved: Saved) -> None:
        self.saved = saved
        self._observer.saved(saved)
        self._tracking.checkpoint(CheckpointPointer(saved.step, saved.path, saved.digest, saved.metrics, saved.best))
        self._outbox.tell(partial(self._source.saved, self._lease, saved.step, saved.path))

    def _set_aside(self, found: SetAside) -> None:
        message = f"the checkpoint of step {found.step} cannot be used ({found.why}) and is now {found.path}"
        self._observer.notice(message)
        detail = {"step": found.step, "path": found.path}
        kind, key = EventKind.CHECKPOINT_DAMAGED, f"damaged-{found.path}"
        self._outbox.tell(partial(self._source.note, self._lease, kind, message, detail, key))

    def _told_best(self, best: Trial, metric: str) -> None:
        """Once for each trial that is the best when it is looked at, however often its value changes."""
        if best.number not in self._bests:
            self._bests.add(best.number)
            value, length = best.curve[-1].value, best.length
            message = f"trial {best.number}: {metric} {value:.5g} at {length:g}"
            detail = {"trial": best.number, "value": value, "length": length, "point": dict(best.point)}
            kind, key = EventKind.NEW_BEST, f"best-{best.number}"
            self._outbox.tell(partial(self._source.note, self._lease, kind, message, detail, key))

    def _progressed(self, progress: Progress) -> None:
        self.progress = progress
        self.step = max(self.step, progress.step)
        self._observer.progress(progress)
        self._log.add(progress, time.monotonic())
        self._outbox.progress(self._log.document())
        if progress.step > 0:
            self._tracking.start()
        self._tell_run()

    def _tell_run(self) -> None:
        if self._tracking.run_id and not self._tracking.told:
            self._tracking.told = True
            run = (self._tracking.run_id, tracking_page(self._tracking.uri), self._tracking.experiment_id)
            self._outbox.tell(partial(self._source.set_run, self._lease, *run))
