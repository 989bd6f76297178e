"""Population based training: the worst of a population go on from copies of the best, with their settings changed.

After Jaderberg, Dalibard, Osindero, Czarnecki, Donahue, Razavi, Vinyals, Green, Dunning, Simonyan, Fernando and
Kavukcuoglu, "Population Based Training of Neural Networks", 2017: exploit by truncation selection, explore by
perturbation or resampling.

The population are all ``sweep.trials``; it may be larger than what trains at a time. Who is behind goes first, and of
those the better, so that the worse are compared with them at the same length. A trial is compared with what each of the
others had reached by its own length, and copies only from one that is at least as far.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from random import Random
from typing import Annotated, Any

from pydantic import Field

from epochal.errors import Problem
from epochal.spec.job import JobSpec
from epochal.spec.space import ChoiceOf, Constant, Entry, Ranged
from epochal.sweeps.entries import Params
from epochal.sweeps.ranking import Rank, full_length, mode_of, next_length, ranking
from epochal.sweeps.searcher import sweep_of
from epochal.sweeps.space import Dimension
from epochal.sweeps.trial_scheduler import GoOn, Next, Rung, TakeOver, TrialSchedulerEntry, Verdict
from epochal.sweeps.trial_schedulers.ready import Ready
from epochal.sweeps.trials import Point, Trial

FACTORS = (0.8, 1.2)
_STATE = ("name", "amsgrad", "centered", "history_size", "adamw")
"""Of ``train.optimizer``: what its state has, and in which shapes, follows from these."""


class PbtParams(Params):
    quantile: Annotated[float, Field(gt=0, le=0.5)] = 0.2
    """This share of the population copies from the same share of the best, each `min` epochs or steps."""
    resample: Annotated[float, Field(ge=0, le=1)] = 0.25
    """How likely a setting of a copy is drawn anew; otherwise it is multiplied by 0.8 or 1.2, or a choice moves to the
    one beside it."""


def changes_training_only(params: PbtParams, spec: JobSpec) -> Iterator[Problem]:
    """Weights are copied between trials, so they must all have the same model and data."""
    for path in sweep_of(spec).space:
        if not path.startswith("train."):
            message = f"pbt changes trials while they train, and {path} cannot change then"
            yield Problem(f"sweep.space.{path}", message, hint="search fields of train, such as train.optimizer.lr")


def keeps_the_state(params: PbtParams, spec: JobSpec) -> Iterator[Problem]:
    """A copy goes on with the source's optimizer state, which fits no other optimizer, nor one of other parameters."""
    for path, entry in _changeable(sweep_of(spec).searched).items():
        states = {_state(spec, path, value) for _, value in entry.ends()}
        if path == "train.freeze" or len(states) > 1:
            message = f"a copy goes on with the optimizer's state of another trial, which fits no other {path}"
            yield Problem(f"sweep.space.{path}", message, hint="search it in a sweep of its own, with asha")


def _state(spec: JobSpec, path: str, value: Any) -> str:
    """The same text for what has the same optimizer state, where the field at ``path`` has that value."""
    optimizer: dict[str, Any] = spec.train.optimizer.model_dump()
    if path.rpartition(".")[0] == "train.optimizer":
        optimizer[path.rpartition(".")[2]] = value
    elif path == "train.optimizer" and isinstance(value, Mapping):
        optimizer = dict(value)
    kept = [optimizer.get(name) for name in _STATE]
    # sgd makes up for a momentum that is not there.
    return json.dumps([*kept, optimizer.get("name") == "rmsprop" and bool(optimizer.get("momentum"))])


def has_a_population(params: PbtParams, spec: JobSpec) -> Iterator[Problem]:
    trials = sweep_of(spec).trials
    if trials < 2:
        yield Problem("sweep.trials", f"pbt needs a population of at least 2, got {trials}", value=trials)


def explored(point: Point, searched: Mapping[str, Entry], draw: Random, resample: float) -> Point:
    """The point with its settings changed. Constants stay, and so do choices that other settings depend on (``when``):
    the point goes on to have the same fields. Numbers stay within their bounds and on their steps."""
    changeable = _changeable(searched)
    return {
        path: _changed(value, Dimension(path, changeable[path]), draw, resample) if path in changeable else value
        for path, value in point.items()
    }


def _changeable(searched: Mapping[str, Entry]) -> dict[str, Ranged | ChoiceOf]:
    decisive = {path for entry in searched.values() for path in entry.when}
    return {path: entry for path, entry in searched.items() if path not in decisive and not isinstance(entry, Constant)}


def _changed(value: Any, dimension: Dimension, draw: Random, resample: float) -> Any:
    if draw.random() < resample:
        return dimension.value(draw.random())
    up = draw.random() < 0.5
    if isinstance(dimension.entry, ChoiceOf):
        return _beside(value, dimension.entry.choice, up)
    return _perturbed(value, dimension.entry, up)


def _beside(value: Any, choice: list[Any], up: bool) -> Any:
    """The choice before or after ``value``: the other one where it is the last, itself where it is none of them."""
    if value not in choice or len(choice) == 1:
        return value
    index = choice.index(value)
    beside = index + 1 if up else index - 1
    return choice[beside if 0 <= beside < len(choice) else 2 * index - beside]


def _perturbed(value: Any, entry: Ranged, up: bool) -> Any:
    """A number of the range near ``value``; itself where it is none: the user's own points may have null there."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    changed = entry.nearest(value * FACTORS[up])
    if changed == value and entry.spacing is not None:
        return entry.nearest(value + (entry.spacing if up else -entry.spacing))
    return changed


class Pbt:
    """The population, as far as each of it has come."""

    def __init__(self, params: PbtParams, spec: JobSpec) -> None:
        sweep = sweep_of(spec)
        self._params = params
        self._interval, self._seed = sweep.trial_scheduler.min.value, sweep.search.seed
        self._searched = sweep.searched
        self._full = full_length(spec)
        self._rank = ranking(mode_of(spec))
        self._population: dict[int, Trial] = {}
        """Those that are not over, as they last reached a length."""
        self._copies: set[int] = set()
        """Those that took over another's state and have not been measured since."""
        self._ready = Ready()

    def rungs(self, trials: int) -> tuple[Rung, ...]:
        lengths = [self._interval]
        while lengths[-1] < self._full:
            lengths.append(next_length(lengths[-1], self._interval, self._full))
        return tuple(Rung(length, trials) for length in lengths)

    def first(self) -> float:
        return self._interval

    def started(self, trial: Trial) -> None:
        self._ready.discard(trial.number)

    def reached(self, trial: Trial) -> Verdict:
        self._population[trial.number] = trial
        self._copies.discard(trial.number)
        source = self._source(trial)
        length = trial.length if source is None else source.length
        ready = Next(trial.number, next_length(length, self._interval, self._full))
        self._ready.add(ready.until, self._at(trial, trial.length), ready)
        if source is None:
            return GoOn(ready.until)
        self._copies.add(trial.number)
        point = explored(source.point, self._searched, self._draw(trial, "explore"), self._params.resample)
        return TakeOver(source.number, length, point, ready.until)

    def ended(self, trial: Trial) -> None:
        self._population.pop(trial.number, None)
        self._ready.discard(trial.number)

    def next(self, holds: int | None, more: bool) -> Next | None:
        # All of the population begin before any goes on: the first would find nobody to be compared with.
        return None if more else self._ready.first(holds)

    def _source(self, trial: Trial) -> Trial | None:
        """Whose state the trial is to copy; None where it goes on with its own."""
        ranks = sorted(self._at(other, trial.length) for other in self._population.values())
        count = min(math.ceil(len(ranks) * self._params.quantile), len(ranks) // 2)  # never one of both ends
        worst = {number for _, _, number in ranks[len(ranks) - count :]}
        if trial.number not in worst:
            return None
        best = [self._population[number] for diverged, _, number in ranks[:count] if not diverged]
        # Not a copy before it is measured: its last value is of the state that it has given up.
        sources = [one for one in best if one.length >= trial.length and one.number not in self._copies]
        return self._draw(trial, "exploit").choice(sources) if sources else None

    def _at(self, trial: Trial, length: float) -> Rank:
        """What a trial had reached by that length; the worst of all where it had nothing yet."""
        values = [measured.value for measured in trial.curve if measured.length <= length]
        return self._rank(values[-1] if values else math.nan, trial.number)

    def _draw(self, trial: Trial, what: str) -> Random:
        """Random numbers that depend on the seed, the trial, its length and what they are for, and on nothing else."""
        return Random(f"{self._seed} {trial.number} {trial.length!r} {what}")


ENTRY = TrialSchedulerEntry(
    summary="The worst of a population go on from copies of the best, with other settings",
    source="Jaderberg, Dalibard, Osindero and others 2017, Population based training of neural networks",
    params=PbtParams,
    build=Pbt,
    problems=lambda params, spec: (
        *changes_training_only(params, spec),
        *keeps_the_state(params, spec),
        *has_a_population(params, spec),
    ),
)
