"""The controller of a sweep: a fold over what it is told, which says what is trained next.

The same inputs in the same order give the same trials and commands: there is no clock here, and no Ray. Whoever takes
over a sweep replays its inputs, as ``inputs.to_json`` wrote them, into a new controller, and tells that
``Interrupted()``. An input that cannot be is refused before anything has changed.

A free worker gets, in this order: an interrupted trial, one that the trial scheduler promotes or continues, a point of
the user's, a new one of the searcher's. ``sweep.points`` and the searcher's are as many as ``sweep.trials`` and what it
was extended by; points that were added later and repeats come on top of those.
"""

from __future__ import annotations

import heapq
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

from epochal.errors import ConflictError, NotFoundError, UsageError
from epochal.spec.job import JobSpec
from epochal.sweeps.check import searcher_of, trial_scheduler_of
from epochal.sweeps.ranking import Rank, full_length, mode_of, ranking
from epochal.sweeps.searcher import Searcher, sweep_of
from epochal.sweeps.space import Space
from epochal.sweeps.trial_scheduler import GoOn, Stop, TakeOver, TrialScheduler
from epochal.sweeps.trials import (
    SEED,
    Added,
    Asked,
    Cancelled,
    Command,
    Copy,
    End,
    Extended,
    Failed,
    Finish,
    Input,
    Interrupted,
    Measured,
    Point,
    Reached,
    Repeated,
    Run,
    Trial,
    TrialState,
)

STOPPED_BY_USER = "STOPPED_BY_USER"
"""The ledger's reason of a trial that its user ended."""


@dataclass(frozen=True)
class _Wanted:
    """A point that the user has added. A ``repeat`` trains to its full length at once, whatever the trial
    scheduler says of others: it is there to be compared with the trial that it repeats."""

    point: Point
    repeat: bool = False


class Controller:
    """The trials of one sweep, and what is to be done with them next.

    ``earlier`` are trials of an earlier sweep that the searcher learns from; their numbers are negative.
    """

    def __init__(
        self, spec: JobSpec, searcher: Searcher, trial_scheduler: TrialScheduler, earlier: Sequence[Trial] = ()
    ) -> None:
        sweep = sweep_of(spec)
        self._space, self._seed = Space(sweep.searched), sweep.search.seed
        self._train_seed = spec.train.seed
        self._searcher, self._trial_scheduler = searcher, trial_scheduler
        self._full = full_length(spec)
        self._rank = ranking(mode_of(spec))
        self._failure_budget = sweep.failure_budget
        self._earlier = len(earlier)
        self._history = list(earlier)
        """What the searcher learns from: earlier trials, then this sweep's in order of their numbers."""
        self._trials: dict[int, Trial] = {}
        self._best: Trial | None = None
        self._running: set[int] = set()
        self._interrupted: list[int] = []
        """A heap of WAITING trials whose segments were interrupted; those that have ended since are left out late."""
        self._own_points = 0
        self._added: deque[_Wanted] = deque()
        self._first = deque(self._completed(point) for point in sweep.points)
        self._left = sweep.trials
        """So many may begin yet, besides those that were added."""
        self._suggested = 0
        self._exhausted = False
        """When it was last asked, the searcher had no more; only for ``wanted``."""
        self._repeats: set[int] = set()
        self._failures = 0
        self._finished = False
        self._ended: dict[int, Trial] = {}
        """Trials that only the end of the sweep has stopped, as they were before."""

    @classmethod
    def of(cls, spec: JobSpec, earlier: Sequence[Trial] = ()) -> Controller:
        """With the searcher and the trial scheduler that the spec names.

        Raises:
            NotFoundError: there are none of these names.
            ValidationError: their parameters are wrong.
            UsageError: it is no sweep, or has no objective.
        """
        return cls(spec, searcher_of(spec), trial_scheduler_of(spec), earlier)

    @property
    def trials(self) -> Mapping[int, Trial]:
        """By number, from 0."""
        return MappingProxyType(self._trials)

    @property
    def wanted(self) -> int:
        """How many trials there will be, as far as is known."""
        return len(self._trials) + len(self._added) + (0 if self._exhausted else self._left)

    @property
    def is_finished(self) -> bool:
        return self._finished

    @property
    def best(self) -> Trial | None:
        """The best of the trials that trained to their full length, or before there is one the best so far, by their
        newest values; None before any was measured. FAILED trials and NaN are left out."""
        return self._best

    def _order(self, trial: Trial) -> tuple[bool, Rank]:
        return trial.state is not TrialState.COMPLETED, self._rank(trial.curve[-1].value, trial.number)

    def next_suggestion(self, asked: Asked) -> Callable[[], Point | None] | None:
        """What the searcher would be asked for the answer to that input: to be called beforehand, as it may take
        seconds, and told with the input. None where the answer takes nothing of the searcher's."""
        own = self._finished or self._waits or self._added or self._first or not self._left
        if own or self._trial_scheduler.next(asked.holds, self._may_begin) is not None:
            return None
        # A copy: the searcher reads it in another thread, while inputs go on changing the list.
        return partial(self._searcher.suggest, self._suggested, tuple(self._history))

    def step(self, told: Input) -> list[Command]:
        """Take one input in.

        Raises:
            NotFoundError: there is no such trial.
            ConflictError: it cannot be: the trial is not training, or not to that length, or is over.
            UsageError: it asks for nothing.
        """
        commands: list[Command] = []
        match told:
            case Asked():
                commands = self._asked(told)
            case Reached():
                commands = self._reached(told)
            case Failed():
                commands = self._failed(told)
            case Interrupted():
                self._interrupt(told)
            case Cancelled():
                commands = self._cancelled(told)
            case Extended():
                _at_least_one("trials", told.trials)
                self._reopen()
                self._left += told.trials
            case Added():
                _at_least_one("points", len(told.points))
                self._reopen()
                self._added.extend(_Wanted(self._completed(point)) for point in told.points)
            case Repeated():
                self._repeat(told)
        return commands

    def _asked(self, told: Asked) -> list[Command]:
        if told.holds is not None:
            self._known(told.holds)
        if self._finished:
            return []
        run = self._interrupted_run() or self._continued(told.holds, self._may_begin) or self._begun(told)
        run = run or self._continued(told.holds, more=False)  # there are no new trials to be waited for
        return [run] if run is not None else self._finish_if_over(more=False)

    def _interrupted_run(self) -> Run | None:
        while self._interrupted:
            trial = self._trials[heapq.heappop(self._interrupted)]
            if trial.state is TrialState.WAITING:
                return self._run(trial)
        return None

    def _continued(self, holds: int | None, more: bool) -> Run | None:
        """What the trial scheduler promotes or continues."""
        chosen = self._trial_scheduler.next(holds, more)
        if chosen is None:
            return None
        trial = replace(self._trials[chosen.trial], until=chosen.until)
        self._trial_scheduler.started(trial)
        return self._run(trial)

    def _begun(self, told: Asked) -> Run | None:
        """A new trial."""
        wanted = self._added.popleft() if self._added else self._planned(told)
        if wanted is None:
            return None
        number = len(self._trials)
        if wanted.repeat:
            self._repeats.add(number)
            trial = Trial(number, wanted.point, until=self._full)
        else:
            trial = Trial(number, wanted.point, until=self._trial_scheduler.first())
            self._trial_scheduler.started(trial)
        self._history.append(trial)
        return self._run(trial)

    def _planned(self, told: Asked) -> _Wanted | None:
        """The next point of the spec's own, or of the searcher's, which in a replay is known already."""
        if not self._left:
            return None
        if self._first:
            self._left -= 1
            return _Wanted(self._first.popleft())
        # An `Asked` is written down with its answer, whatever that was: a suggestion where it began the next trial.
        known = told.point if told.trial == len(self._trials) else None
        point = self._searcher.suggest(self._suggested, self._history) if known is None else known
        self._exhausted = point is None
        if point is None:
            return None
        self._suggested += 1
        self._left -= 1
        return _Wanted(point)

    def _completed(self, own: Point) -> Point:
        """A point of the user's; what it leaves out of the space is drawn at random."""
        # Numbers below 0 are no suggestion's: `random` would otherwise draw the same rest for a point of its own.
        self._own_points += 1
        return self._space.drawn(self._seed, -self._own_points, own)

    @property
    def _may_begin(self) -> bool:
        """Whether there may be a point that was not yet tried. Whether the searcher has one is known where it is asked,
        and asked each time anew: nothing is remembered of an ``Asked`` without an answer, which is not written down."""
        return bool(self._added) or self._left > 0

    def _run(self, trial: Trial) -> Run:
        self._running.add(trial.number)
        self._set(replace(trial, state=TrialState.RUNNING))
        return Run(trial.number, trial.point, trial.until)

    def _reached(self, told: Reached) -> list[Command]:
        trial = self._training(told.trial)
        exact = told.length == trial.until or (told.done and trial.length <= told.length < trial.until)
        if not exact:
            raise ConflictError(
                f"trial {trial.number} was to train to length {trial.until:g}, not {told.length:g}",
                "tell of the length that the Run has; only a trial that is done may end before",
            )
        self._running.remove(trial.number)
        # A trial that is done may end at the length where the segment began: the newer value is the one of its state.
        before = tuple(measured for measured in trial.curve if measured.length < told.length)
        trial = replace(trial, curve=(*before, Measured(told.length, told.value)))
        if told.done or told.length >= self._full:
            return [self._end(replace(trial, state=TrialState.COMPLETED)), *self._finish_if_over()]
        return [*self._judged(trial), *self._finish_if_over()]

    def _judged(self, trial: Trial) -> list[Command]:
        """What the trial scheduler says of a trial that may train further."""
        match self._trial_scheduler.reached(trial):
            case GoOn(until):
                self._set(replace(trial, state=TrialState.WAITING, until=until))
            case Stop(why):
                self._set(replace(trial, state=TrialState.STOPPED, message=why))
                return [End(trial.number, TrialState.STOPPED, why)]
            case TakeOver(source, length, point, until):
                self._set(replace(trial, state=TrialState.WAITING, until=until, point=point, copied=source))
                return [Copy(trial.number, source, length)]
            case _:
                self._set(replace(trial, state=TrialState.PAUSED))
        return []

    def _failed(self, told: Failed) -> list[Command]:
        trial = self._training(told.trial)
        self._running.remove(trial.number)
        end = self._end(replace(trial, state=TrialState.FAILED, why=told.reason, message=told.message))
        self._failures += 1
        if self._failures <= self._failure_budget:
            return [end, *self._finish_if_over()]
        failed = (
            f"{self._failures} trial{'s' if self._failures > 1 else ''} failed, and failure_budget is"
            f" {self._failure_budget}; the last, trial {trial.number}, with {told.reason}: {told.message}"
        )
        return [end, *self._finish(failed, told.reason)]

    def _interrupt(self, told: Interrupted) -> None:
        lost = sorted(self._running if told.trials is None else {self._training(one).number for one in told.trials})
        for number in lost:
            self._running.remove(number)
            self._set(replace(self._trials[number], state=TrialState.WAITING))
            heapq.heappush(self._interrupted, number)

    def _cancelled(self, told: Cancelled) -> list[Command]:
        trial = self._known(told.trial)
        if trial.state.is_over:
            raise ConflictError(f"trial {trial.number} is {trial.state} already", "there is nothing to cancel")
        self._running.discard(trial.number)
        stopped = replace(trial, state=TrialState.STOPPED, why=STOPPED_BY_USER, message="ended by its user")
        return [self._end(stopped), *self._finish_if_over()]

    def _repeat(self, told: Repeated) -> None:
        _at_least_one("times", told.times)
        repeated = self._known(told.trial)
        self._reopen()
        points = [*(trial.point for trial in self._trials.values()), *(wanted.point for wanted in self._added)]
        alike = [point for point in points if _but_seed(point) == _but_seed(repeated.point)]
        taken = [int(point.get(SEED, self._train_seed)) for point in alike]
        for more in range(1, told.times + 1):
            point = {**repeated.point, SEED: (max(taken) + more) % 2**32}  # as large as the spec takes it
            self._added.append(_Wanted(point, repeat=True))

    def _finish_if_over(self, more: bool = True) -> list[Command]:
        """The end of the sweep, where nothing trains or waits and nothing new may begin."""
        if self._running or self._waits or (more and self._may_begin):
            return []
        return self._finish() if self._trial_scheduler.next(None, False) is None else []

    @property
    def _waits(self) -> bool:
        """Whether a trial's segment was interrupted, and is to be trained again."""
        return any(self._trials[number].state is TrialState.WAITING for number in self._interrupted)

    def _finish(self, failed: str = "", reason: str = "") -> list[Command]:
        # The trial scheduler is not told: to it they still wait, as they do again where the sweep is extended.
        self._ended = {number: trial for number, trial in self._trials.items() if not trial.state.is_over}
        why = "the sweep failed" if failed else "not promoted before the sweep ended"
        for trial in self._ended.values():
            self._set(replace(trial, state=TrialState.STOPPED, message=why))
        self._running.clear()
        self._finished = True
        return [*(End(number, TrialState.STOPPED, why) for number in self._ended), Finish(failed, reason)]

    def _reopen(self) -> None:
        """Go on after the end: what only that has stopped is as it was before, and failures count anew."""
        if not self._finished:
            return
        for number, trial in self._ended.items():
            lost = trial.state is TrialState.RUNNING
            self._set(replace(trial, state=TrialState.WAITING) if lost else trial)
            if lost:  # one that was WAITING is in the heap, or in the trial scheduler's, since before the end
                heapq.heappush(self._interrupted, number)
        self._finished, self._exhausted, self._failures, self._ended = False, False, 0, {}

    def _end(self, trial: Trial) -> End:
        self._set(trial)
        if trial.number not in self._repeats:  # of those it was never told either
            self._trial_scheduler.ended(trial)
        return End(trial.number, trial.state, trial.message)

    def _set(self, trial: Trial) -> None:
        self._trials[trial.number] = trial
        self._history[self._earlier + trial.number] = trial
        # Looked for among all only where the best itself has changed: it may be worse now.
        if self._best is not None and self._best.number == trial.number:
            ranked = (one for one in self._trials.values() if one.is_ranked)
            self._best = min(ranked, key=self._order, default=None)
        elif trial.is_ranked and (self._best is None or self._order(trial) < self._order(self._best)):
            self._best = trial

    def _known(self, number: int) -> Trial:
        if number not in self._trials:
            raise NotFoundError("trial", str(number), hint=f"this sweep has {len(self._trials)}, counted from 0")
        return self._trials[number]

    def _training(self, number: int) -> Trial:
        trial = self._known(number)
        if trial.state is not TrialState.RUNNING:
            raise ConflictError(
                f"trial {number} is {trial.state}, and trains no segment",
                "drop what its workers say: it was ended, or interrupted, before",
            )
        return trial


def _at_least_one(what: str, count: int) -> None:
    if count < 1:
        raise UsageError(f"expected at least one of {what}, got {count}")


def _but_seed(point: Point) -> str:
    return json.dumps({path: value for path, value in point.items() if path != SEED}, sort_keys=True)
