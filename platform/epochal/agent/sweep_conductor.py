"""Between the controller of a sweep and the slots that train its trials."""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from epochal.agent.program import SweepTell
from epochal.agent.retry_policy import Ending, may_retry
from epochal.agent.sweep_journal import SweepJournal
from epochal.agent.sweep_packs import Packs
from epochal.agent.sweep_progress import SweepProgress
from epochal.agent.sweep_slots import Orders, SlotPool
from epochal.agent.trial_states import checkpoints, copy_state, result_of, segment_of
from epochal.engine.events import Done, Failed, FailureKind
from epochal.engine.gang import Stop
from epochal.engine.payload import TrainPayload
from epochal.engine.place import Place
from epochal.engine.slot import LASTING, Slot
from epochal.errors import ConflictError, NotFoundError, UsageError
from epochal.ledger.states import Reason
from epochal.ledger.sweep_values import NewInput, TrialRecord
from epochal.spec.job import JobSpec
from epochal.sweeps import trials as words
from epochal.sweeps.controller import Controller
from epochal.sweeps.inputs import to_json
from epochal.sweeps.searcher import learnt_from
from epochal.sweeps.trials import Asked, Command, Copy, End, Finish, Input, Interrupted, Reached, Run, Trial, TrialState
from epochal.tracking.sent_trials import SweepTrials
from epochal.tracking.trial_runs import TrialRuns
from epochal.training.control import Prepared, Report

_LOOK_SECONDS = 0.25
"""How often it is told how the sweep stands, and looked at what others ask of it. Both go over all trials: after each
segment, that would take longer than a tiny one of thousands trains."""


@dataclass(frozen=True)
class Sweep:
    """What is trained, and where its traces go. ``payload`` has the spec as it is stored, which those of its trials are
    made of; ``folder`` is the job's."""

    spec: JobSpec
    payload: TrainPayload
    folder: Path
    journal: SweepJournal
    orders: Orders


class Conductor:
    """Between the controller and the slots. Each slot has a thread, which asks for a segment, and says how it ended."""

    def __init__(self, sweep: Sweep, place: Place, tell: SweepTell, stop: Stop) -> None:
        self._sweep = sweep
        self._place = place
        self._controller = Controller.of(sweep.spec, earlier := sweep.journal.earlier(sweep.spec))
        self._journal = sweep.journal
        self._tell = tell
        if learnt := learnt_from(sweep.spec, earlier):
            tell.notice(learnt)
        self._stop = stop
        self._changed = threading.Condition(threading.RLock())
        self._training: dict[int, Slot] = {}
        self._metrics: dict[int, Mapping[str, float]] = {}
        self._steps: dict[tuple[int, float], int] = {}
        self._lost: dict[int, list[Reason]] = {}
        self._heard = 0
        self._runs = TrialRuns(sweep.folder)
        self._sent = SweepTrials(sweep.folder)
        self._run_ids: dict[int, str] = {}
        self._finish: Finish | None = None
        self._broken: Failed | None = None
        self._leaves = False
        self._suggesting = False
        """Whether a slot waits for the searcher."""
        self._moved = False
        """Whether it was not told yet how the sweep stands."""

    def begin(self) -> None:
        """Take over from the attempt before, and hear what users have asked meanwhile."""
        told, untold = self._journal.replayed()
        copies: dict[int, Copy] = {}
        self._replay(told, copies)
        known = dict(self._controller.trials)
        self._replay(untold, copies)
        self._link_runs()
        for number, trial in self._controller.trials.items():
            self._runs.record(trial)
            if trial != known.get(number):  # by what the ledger has not heard
                self._journal.change(self._record(number))
        for copy in copies.values():
            self._copy(copy)
        if any(trial.state is TrialState.RUNNING for trial in self._controller.trials.values()):
            self._step(Interrupted())
        finish, self._finish = self._finish, None
        self._hear()
        self._finish = self._finish or (finish if self._controller.is_finished else None)
        if self._controller.is_finished and not self._stop.requested:
            # The attempt before had trained all of it, and was lost before it could say so: there is nothing to start.
            self._tell.started(self._place.world_size, [])
        self._tell_progress()

    def _replay(self, inputs: Sequence[Input], copies: dict[int, Copy]) -> None:
        """Have the controller take in what it was told before. ``copies``, by trial, are those that the attempt before
        may not have come to make: nothing was measured since."""
        for told in inputs:
            if isinstance(told, Reached):
                self._metrics[told.trial] = told.metrics
                self._steps[told.trial, told.length] = told.step
                copies.pop(told.trial, None)
            for command in self._controller.step(told):
                match command:
                    case Copy():
                        copies[command.trial] = command
                    case End():
                        copies.pop(command.trial, None)
                    case Finish():
                        self._finish = command

    def conduct(self, slots: SlotPool) -> None:
        """Until the sweep is over."""
        begin = slots.begin()
        self._packs = Packs(self._sweep.spec, dict(self._sweep.payload.spec), len(slots))
        with ThreadPoolExecutor(self._sweep.spec.most_workers, "slot") as threads:
            working = {threads.submit(self._work, slot, slots): slot for slot in begin}
            try:
                while not self._is_over and self._resize(slots, threads, working):
                    with self._changed:
                        self._changed.wait_for(lambda: self._is_over, _LOOK_SECONDS)
                    if self._sweep.orders.requested > self._heard:
                        self._hear()
                    self._link_runs()
                    if self._moved:
                        self._tell_progress()
            finally:
                self._end_all()
            for one in working:
                one.result()
        self._tell_progress()

    def _resize(self, slots: SlotPool, threads: ThreadPoolExecutor, working: dict[Future[None], Slot]) -> bool:
        """Have as many slots as the ledger allows; whether no other than those that are to leave has ended."""
        for one in [one for one in working if one.done()]:
            if not slots.is_leaving(working[one]):
                return False
            one.result()
            slots.left(working.pop(one))
        working |= {threads.submit(self._work, slot, slots): slot for slot in slots.joining()}
        with self._changed:
            self._packs.slots = len(slots)
            overdue = slots.overdue()
            for trial, slot in self._training.items():
                if slot in overdue:
                    slot.end_trial(trial)
            if slots.surplus > 0:
                self._changed.notify_all()  # one that waits for work leaves at once
        return True

    def ending(self) -> Ending:
        if self._journal.failed is not None and not self._stop.requested:
            message = f"what became of the trials cannot be written down: {self._journal.failed}"
            return Ending(Reason.INFRASTRUCTURE, message)
        if self._broken is not None and not self._stop.requested:
            broken = self._broken
            return Ending(Reason(broken.kind), broken.message, broken.traceback, refusal=broken.refusal)
        if self._finish is None:
            return Ending(None)
        if self._finish.failed:
            return Ending(Reason(self._finish.reason), self._finish.failed, final=True)
        return Ending(Reason.COMPLETED, result=self._result())

    def _result(self) -> dict[str, Any]:
        if (best := self._controller.best) is None:
            return {"metrics": {}, "best": None, "weights": None}
        step = self._steps.get((best.number, best.length), 0)
        return result_of(best, self._metrics.get(best.number, {}), step, self._sweep.payload.spec, self._sweep.folder)

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    @property
    def _is_over(self) -> bool:
        broken = self._broken or self._journal.failed
        return self._finish is not None or broken is not None or self._stop.requested or self._leaves

    def report(self, trial: int | None, report: Report) -> None:
        """What the training of a trial tells."""
        if isinstance(report, Prepared):
            self._packs.built(report.parameters)
        self._tell.of_trial(trial, report)

    def _work(self, slot: Slot, slots: SlotPool) -> None:
        """One slot's thread."""
        holds: int | None = None
        try:
            while runs := self._next(slot, slots, holds):
                spec, stored, best = self._sweep.spec, self._sweep.payload.spec, self._controller.best
                ended = slot.train([segment_of(run, spec, stored, best) for run in runs])
                holds = self._ended_together(runs, ended)
        finally:
            slot.close()

    def _next(self, slot: Slot, slots: SlotPool, holds: int | None) -> list[Run]:
        """What the slot trains next, several as a pack; nothing once it is to leave, or the sweep is over."""
        with self._changed:
            while not self._is_over and not slots.leaves(slot):
                left = self._controller.wanted - len(self._controller.trials)
                taken = self._packs.take(lambda: self._asked(holds), left)
                if not taken and not self._is_over:
                    self._changed.wait()
                # Some may have ended while they waited to be taken, or all while the searcher was asked for more.
                runs = [run for run in taken if self._controller.trials[run.trial].state is TrialState.RUNNING]
                if runs and not self._is_over:
                    self._training.update({run.trial: slot for run in runs})
                    return runs
            return []

    def _asked(self, holds: int | None) -> Run | None:
        """What the controller gives out. Nothing while another slot waits for the searcher, where it is the searcher's
        turn: each suggestion is to know of the one before."""
        told = Asked(holds if holds in self._controller.trials else None)
        if (suggest := self._controller.next_suggestion(told)) is not None:
            if self._suggesting:
                return None
            point = self._suggested(suggest)
            told = replace(told, trial=len(self._controller.trials), point=point)
        return next((command for command in self._step(told) if isinstance(command, Run)), None)

    def _suggested(self, suggest: Callable[[], words.Point | None]) -> words.Point | None:
        """Call it without the lock, which this thread holds once: it may take seconds, in which segments end, others
        are promoted, and users are heard."""
        self._suggesting = True
        self._changed.release()
        try:
            return suggest()
        finally:
            self._changed.acquire()
            self._suggesting = False
            self._changed.notify_all()

    def _ended_together(self, runs: Sequence[Run], ended: Sequence[Done | Failed | None]) -> int | None:
        """Tell the controller; the one trial that the slot has trained last."""
        unclear: list[Failed] = []
        with self._changed:
            for run, one in zip(runs, ended, strict=True):
                self._training.pop(run.trial, None)
                if self._controller.trials[run.trial].state.is_over:  # it was ended while it trained
                    self._put_away(run.trial)
                elif len(runs) > 1 and isinstance(one, Failed) and one.kind not in LASTING:
                    unclear.append(one)
                    self._packs.apart(run.trial)
                    self._interrupted(run)
                else:
                    self._ended(run, one)
            if unclear and not self._stop.requested:
                told = f"{len(unclear)} trials that trained together go on, each alone"
                self._tell.notice(f"{told}: {unclear[0].message}")
            return runs[0].trial if len(runs) == 1 and isinstance(ended[0], Done) else None

    def _interrupted(self, run: Run) -> None:
        if not self._stop.requested and self._controller.trials[run.trial].state is TrialState.RUNNING:
            self._step(Interrupted((run.trial,)), run.trial)

    def _ended(self, run: Run, ended: Done | Failed | None) -> None:
        trial = self._controller.trials[run.trial]
        if ended is None or trial.state is not TrialState.RUNNING:
            return  # the attempt ends, or the trial has ended meanwhile
        if isinstance(ended, Failed):
            self._fail(trial, ended)
            return
        if ended.result["why_alone"]:
            self._packs.unfit(run)
        if ended.result["state"] == "stopped":
            self._interrupted(run)
        else:
            self._step(self._reached(run, ended.result), run.trial)

    def _reached(self, run: Run, result: Mapping[str, Any]) -> Reached:
        objective = self._sweep.spec.objective
        assert objective is not None  # a rule of the spec
        metrics = {name: float(value) for name, value in result["metrics"].items()}
        length = float(result["epochs"] if self._sweep.spec.train.unit == "epochs" else result["step"])
        early = result["state"] == "completed" and length < run.until
        # In whole steps it is not quite the length that was asked for, by which the controller knows it.
        length = length if early else run.until
        self._metrics[run.trial] = metrics
        step = self._steps[run.trial, length] = int(result["step"])
        return Reached(run.trial, length, metrics.get(objective.metric, math.nan), early, metrics, step)

    def _fail(self, trial: Trial, failed: Failed) -> None:
        """A lost worker costs its trial nothing, a few times; a place that is gone ends the attempt."""
        reason = Reason(failed.kind)
        if failed.kind is FailureKind.INFRASTRUCTURE and (self._stop.requested or self._is_over):
            return  # its workers were killed for that
        lost = self._lost.setdefault(trial.number, [])
        lost.append(reason)
        retried = failed.kind is not FailureKind.HANG and may_retry(self._sweep.spec.retry, lost)
        if failed.kind is FailureKind.INFRASTRUCTURE and (self._place.connection.lost() or not self._place.is_whole):
            self._broken = failed
        elif retried:
            self._tell.notice(f"trial {trial.number} goes on with new workers: {failed.message}")
            self._step(Interrupted((trial.number,)), trial.number)
        else:
            self._step(words.Failed(trial.number, reason.value, failed.message), trial.number)
        self._changed.notify_all()

    def _step(self, told: Input, trial: int | None = None, key: str | None = None) -> list[Command]:
        """Have the controller take it in, write that down, and do at once what is to be done at once."""
        with self._changed:
            commands = self._controller.step(told)
            started = next((command.trial for command in commands if isinstance(command, Run)), None)
            number = started if started is not None else trial
            if commands or not isinstance(told, Asked):
                record = None if number is None else self._record(number)
                self._journal.tell(NewInput(to_json(told, commands), key), record)
            self._finish = next((command for command in commands if isinstance(command, Finish)), self._finish)
            for command in commands:  # after it was told: a copy, or a deletion, that nobody knows of cannot be undone
                if isinstance(command, Copy):
                    self._copy(command)
                elif isinstance(command, End):
                    self._end(command)
            if number is not None:
                changed = self._controller.trials[number]
                self._runs.record(changed)
            if commands or not isinstance(told, Asked):
                self._moved = True
                self._changed.notify_all()
            return commands

    def _record(self, number: int) -> TrialRecord:
        return TrialRecord.of(self._controller.trials[number], self._run_ids.get(number), self._metrics.get(number))

    def _link_runs(self) -> None:
        """Have the ledger know the runs that MLflow has by now."""
        self._sent.read_sent()
        if not (fresh := self._sent.run_ids.items() - self._run_ids.items()):  # no other thread changes them
            return
        with self._changed:
            for number, run_id in fresh:
                self._run_ids[number] = run_id
                if number in self._controller.trials:
                    self._journal.change(self._record(number))

    def _end(self, command: End) -> None:
        self._journal.change(self._record(command.trial))
        if (slot := self._training.get(command.trial)) is not None:
            slot.end_trial(command.trial)
        else:
            self._put_away(command.trial)

    def _put_away(self, number: int) -> None:
        """The trial is over, and no worker writes metrics or checkpoints of it any more: of a run that is told to be
        over, what comes later is not sent."""
        trial = self._controller.trials[number]
        self._runs.record(trial)
        # The end of the sweep stops those too, without a reason, that go on once it is extended.
        if self._finish is None or trial.state is not TrialState.STOPPED or trial.why:
            shutil.rmtree(checkpoints(self._sweep.folder, number), ignore_errors=True)

    def _copy(self, command: Copy) -> None:
        copy_state(self._sweep.folder, command, self._steps.get((command.source, command.length), 0))

    def _tell_progress(self) -> None:
        controller, objective = self._controller, self._sweep.spec.objective
        assert objective is not None  # a rule of the spec
        with self._changed:
            self._moved = False
            trials, wanted, best = tuple(controller.trials.values()), controller.wanted, controller.best
        self._tell.swept(SweepProgress(objective, trials, wanted, best))

    def _hear(self) -> None:
        """What users ask. The controller may refuse it: the sweep has gone on since."""
        for request in self._journal.asked():
            try:
                with self._changed:
                    if self._finish is not None:
                        return  # the ledger queues the sweep anew for what came of nothing by its end, and for no other
                    self._heard = max(self._heard, request.seq)
                    self._step(request.told, key=request.key)
            except (ConflictError, NotFoundError, UsageError) as error:  # the last: a newer server takes more
                self._tell.notice(f"not done: {request}: {error}")

    def _end_all(self) -> None:
        """The trials that train now: what they have done is saved, where the sweep goes on."""
        with self._changed:
            self._leaves = True  # also where one slot's thread has failed: the others ask for nothing more
            self._changed.notify_all()
            for trial, slot in self._training.items():
                slot.end_trial(trial)
