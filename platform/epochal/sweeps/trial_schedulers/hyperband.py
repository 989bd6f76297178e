"""Hyperband: successive halving in brackets, which begin with many short trials or with few long ones.

After Algorithm 1 of Li, Jamieson, DeSalvo, Rostamizadeh and Talwalkar, "Hyperband: A Novel Bandit-Based Approach to
Hyperparameter Optimization", JMLR 18(185), 2018. A rung of a bracket is decided when all of it have reached it;
meanwhile other brackets train, so that no worker waits for a slow trial.

``sweep.trials`` bounds the whole. Brackets are filled one after the other, the one with the shortest first rung first,
and after the last the first comes again. The bracket in which the trials run out is *cut*: it promotes the same share
of those that it has, and always one. A sweep that is extended fills it up first.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from epochal.spec.job import JobSpec
from epochal.sweeps.entries import Params
from epochal.sweeps.ranking import Rank, full_length, mode_of, ranking
from epochal.sweeps.searcher import sweep_of
from epochal.sweeps.trial_scheduler import Next, Pause, Rung, TrialSchedulerEntry, Verdict
from epochal.sweeps.trial_schedulers.asha import geometric_rungs
from epochal.sweeps.trials import Trial, TrialState


class HyperbandParams(Params):
    eta: Annotated[int, Field(ge=2, le=16)] = 3
    """One of so many trials is promoted from each rung to the next, which is so many times as long."""


@dataclass(frozen=True)
class Shape:
    """A bracket as it is planned: its lengths, and with how many trials it begins."""

    lengths: tuple[float, ...]
    size: int
    eta: int

    def quota(self, rung: int, begun: int) -> int:
        """How many of so many that began are to train to that rung."""
        return max(1, begun // self.eta**rung) if begun else 0


def brackets(lengths: tuple[float, ...], eta: int) -> tuple[Shape, ...]:
    """The brackets over these rungs, of which the last is the full length: each begins one rung later than the one
    before, with fewer trials, for about the same cost.

    >>> [(shape.size, shape.lengths[0]) for shape in brackets((1, 3, 9, 27, 81), eta=3)]
    [(81, 1), (34, 3), (15, 9), (8, 27), (5, 81)]
    """
    most = len(lengths)
    # The size is ceil(most / rungs of the bracket * eta ** (those rungs - 1)), in whole numbers.
    return tuple(
        Shape(lengths[begins:], -(-most * eta ** (most - 1 - begins) // (most - begins)), eta) for begins in range(most)
    )


class Bracket:
    """The trials of one bracket, by rung."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._entered = [0] * len(shape.lengths)
        self._settled = [0] * len(shape.lengths)
        """Those that have reached the rung, or never will."""
        self._paused: list[list[Rank]] = [[] for _ in shape.lengths]
        """Those that wait on the rung, best first."""

    @property
    def is_full(self) -> bool:
        return self._entered[0] == self.shape.size

    @property
    def is_over(self) -> bool:
        return self.is_full and self._entered == self._settled and self.next(None, more=False) is None

    def enter(self, rung: int, paused: Rank | None) -> None:
        """A trial begins to train to that rung; ``paused`` as it was on the one before."""
        self._entered[rung] += 1
        if paused is not None:
            self.leave(rung - 1, paused)

    def settle(self, rung: int, paused: Rank | None) -> None:
        """A trial has reached that rung, where it is ``paused``, or is over."""
        self._settled[rung] += 1
        if paused is not None:
            insort(self._paused[rung], paused)

    def leave(self, rung: int, paused: Rank) -> None:
        del self._paused[rung][bisect_left(self._paused[rung], paused)]

    def next(self, holds: int | None, more: bool) -> Next | None:
        """Whom to promote from the first rung that is not yet done with."""
        if more and not self.is_full:
            return None
        for rung, above in enumerate(self.shape.lengths[1:]):
            if self._settled[rung] < self._entered[rung]:
                return None  # one that still trains to that rung may be among its best
            room = self.shape.quota(rung + 1, self._entered[0]) - self._entered[rung + 1]
            best = [number for diverged, _, number in self._paused[rung][: max(room, 0)] if not diverged]
            if best:
                return Next(holds if holds in best else best[0], above)
        return None


class Hyperband:
    """Brackets, filled one after the other."""

    def __init__(self, params: HyperbandParams, spec: JobSpec) -> None:
        first = sweep_of(spec).trial_scheduler.min.value
        self._rank = ranking(mode_of(spec))
        self._lengths = geometric_rungs(first, params.eta, full_length(spec))
        self._shapes = brackets(self._lengths, params.eta)
        self._begun = [Bracket(self._shapes[0])]
        self._open = list(self._begun)
        """Those of them that are not over."""
        self._bracket_of: dict[int, Bracket] = {}

    def rungs(self, trials: int) -> tuple[Rung, ...]:
        counts = [0] * len(self._lengths)
        for shape, size in self._filled(trials):
            begins = len(counts) - len(shape.lengths)
            for rung in range(len(counts)):
                counts[rung] += shape.quota(max(0, rung - begins), size)
        return tuple(Rung(length, count) for length, count in zip(self._lengths, counts, strict=True))

    def first(self) -> float:
        shape = self._after_last() if self._begun[-1].is_full else self._begun[-1].shape
        return shape.lengths[0]

    def started(self, trial: Trial) -> None:
        if trial.number in self._bracket_of:
            bracket = self._bracket_of[trial.number]
            bracket.enter(bracket.shape.lengths.index(trial.until), self._newest(trial))
        else:
            if self._begun[-1].is_full:
                self._begun.append(Bracket(self._after_last()))
                self._open.append(self._begun[-1])
            self._bracket_of[trial.number] = self._begun[-1]
            self._begun[-1].enter(0, None)

    def reached(self, trial: Trial) -> Verdict:
        self._settle(trial, self._newest(trial))
        return Pause()

    def ended(self, trial: Trial) -> None:
        if trial.state is TrialState.COMPLETED or trial.length < trial.until:
            self._settle(trial, None)
        else:  # its user ended it where it was paused
            bracket = self._bracket_of[trial.number]
            bracket.leave(bracket.shape.lengths.index(trial.until), self._newest(trial))
            self._forget(bracket)

    def next(self, holds: int | None, more: bool) -> Next | None:
        found = (bracket.next(holds, more) for bracket in self._open)
        return next((promoted for promoted in found if promoted is not None), None)

    def _after_last(self) -> Shape:
        return self._shapes[len(self._begun) % len(self._shapes)]

    def _settle(self, trial: Trial, paused: Rank | None) -> None:
        bracket = self._bracket_of[trial.number]
        bracket.settle(bracket.shape.lengths.index(trial.until), paused)
        self._forget(bracket)

    def _forget(self, bracket: Bracket) -> None:
        # `next` asks every open bracket each time, and a long sweep has hundreds that are over.
        if bracket.is_over and bracket in self._open:
            self._open.remove(bracket)

    def _filled(self, trials: int) -> Iterator[tuple[Shape, int]]:
        """The brackets that so many trials fill, with how many each gets."""
        count = 0
        while trials > 0:
            shape = self._shapes[count % len(self._shapes)]
            yield shape, min(shape.size, trials)
            trials, count = trials - shape.size, count + 1

    def _newest(self, trial: Trial) -> Rank:
        return self._rank(trial.curve[-1].value, trial.number)


ENTRY = TrialSchedulerEntry(
    summary="Successive halving in brackets, from many short trials to few long ones; a rung waits for all of its own",
    source="Li, Jamieson, DeSalvo, Rostamizadeh, Talwalkar 2018, Hyperband",
    params=HyperbandParams,
    build=Hyperband,
)
