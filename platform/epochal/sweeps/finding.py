"""What a sweep has found, finished or not: its best trials, its budget, and what its lead is worth."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from statistics import fmean, variance
from typing import Any, Self

from epochal.spec.job import JobSpec
from epochal.sweeps.trials import SEED, Measured, Trial, TrialState

TIMES = 3
"""How often a trial should be repeated that may have been lucky."""
_MOST_REPEATED = 5
_T95 = (6.31, 2.92, 2.35, 2.13, 2.02, 1.94, 1.89, 1.86, 1.83, 1.81)
"""Student's t, one-sided 95 %, for 1 to 10 degrees of freedom."""


@dataclass(frozen=True, eq=False)
class Finding:
    """A sweep's trials and what they are judged by. ``full`` is the length of a whole training, in ``unit``s."""

    name: str
    metric: str
    mode: str
    full: float
    unit: str
    how: str
    trials: tuple[Trial, ...]

    @classmethod
    def of(cls, spec: JobSpec, trials: Sequence[Trial]) -> Self:
        sweep, objective = spec.sweep, spec.objective
        assert sweep is not None
        assert objective is not None
        unit, full = ("epochs", spec.train.epochs) if spec.train.epochs else ("steps", spec.train.steps)
        how = f"{sweep.search.name} search, trial scheduler {sweep.trial_scheduler.name}"
        return cls(spec.name, objective.metric, objective.mode, float(full or 0), unit, how, tuple(trials))

    @property
    def sign(self) -> int:
        """A value times this is the better, the lower it is."""
        return -1 if self.mode == "max" else 1

    @cached_property
    def ranked(self) -> list[Trial]:
        """Those with a number for the objective that did not fail: those that trained to the end first, and of these
        and the others the best newest value first."""
        counted = [trial for trial in self.trials if trial.is_ranked]
        return sorted(counted, key=lambda trial: (not _is_whole(trial), self.sign * value_of(trial), trial.number))

    @cached_property
    def searched(self) -> list[str]:
        """The paths in which the points of trials that were measured differ."""
        values: dict[str, set[str]] = {}
        points = [trial.point for trial in self.trials if trial.curve]
        for point in points:
            for path, value in point.items():
                values.setdefault(path, set()).add(json.dumps(value, sort_keys=True, default=str))
        everywhere = Counter(path for point in points for path in point)
        return [path for path, found in values.items() if len(found) > 1 or everywhere[path] < len(points)]

    @property
    def states(self) -> dict[str, int]:
        """How many trials are in each state that any is in."""
        found = Counter(trial.state for trial in self.trials)
        return {state.value: found[state] for state in TrialState if found[state]}

    @property
    def is_over(self) -> bool:
        """Whether no trial may train further."""
        return all(trial.state.is_over for trial in self.trials)

    @property
    def used(self) -> float:
        """What all trials have trained together."""
        return sum(trial.length for trial in self.trials)

    @property
    def saved(self) -> float:
        """The share of the full training of every trial that began which was not needed, 0 to 1."""
        whole = self.full * sum(1 for trial in self.trials if trial.state is not TrialState.WAITING)
        return max(0.0, 1 - self.used / whole) if whole else 0.0

    def command(self, reference: str, trial: int) -> str:
        """What repeats a trial."""
        return f"epochal sweep repeat {reference} --trial {trial} --times {TIMES}"


def _is_whole(trial: Trial) -> bool:
    return trial.state is TrialState.COMPLETED


def value_of(trial: Trial) -> float:
    """The objective where it was measured last."""
    return trial.curve[-1].value


def from_record(record: Mapping[str, Any]) -> Trial:
    """A trial as the server's JSON has it; without a ``curve`` there is the newest value alone."""
    newest = [(record["length"], record["value"])] if record.get("value") is not None else []
    curve = record.get("curve") or newest
    return Trial(
        number=int(record["number"]),
        point=record["point"],
        state=TrialState(record["state"]),
        until=float(record.get("until") or 0.0),
        curve=tuple(Measured(float(length), float(value)) for length, value in curve),
        why=record.get("reason") or "",
        message=record.get("message") or "",
    )


@dataclass(frozen=True)
class Lead:
    """By how much the best point leads the next one, and what that is worth.

    ``noise`` is the standard deviation of the objective between trainings that differ in nothing but their seed;
    ``source`` says where from: ``repeats`` of a point, the ``curves`` of the best trials (an estimate), or nothing.
    ``is_clear``: whether the lead is larger than such noise makes one time in twenty; None where nobody can tell.
    """

    winner: int
    runner_up: int
    gap: float
    noise: float
    source: str
    is_clear: bool | None
    repeat: tuple[int, ...]
    """The trials to repeat to know."""

    @property
    def said(self) -> str:
        lead = f"trial {self.winner} leads trial {self.runner_up} by {self.gap:.4g}"
        if self.gap == 0:
            lead = f"trials {self.winner} and {self.runner_up} are equal"
        if not self.source:
            return f"{lead}; how much of that is luck is not known: no point was tried twice, and curves are too short"
        larger = "larger" if self.is_clear else "not larger"
        if self.source == "repeats":
            return f"{lead}, {larger} than what seeds make (standard deviation {self.noise:.3g}, from repeated trials)"
        estimate = f"estimated from the ends of the best trials' curves: {self.noise:.3g}"
        return f"{lead}, {larger} than the noise that is {estimate}; repeated trials would tell"


def lead(found: Finding) -> Lead | None:
    """What the lead of the best point is worth; None where fewer than two points have a number.

    Where points were tried with several seeds, a point counts with its mean, and the noise is pooled over them. Else it
    is estimated from second differences of the last half of the best ten curves, which leave out a trend: Gasser, Sroka
    and Jennen-Steinmetz, Residual Variance and Residual Pattern in Nonlinear Regression, Biometrika 1986.
    """
    groups = _by_point(found)
    if len(groups) < 2:
        return None
    groups.sort(key=lambda group: (found.sign * _mean(group), group[0].number))
    first, second = groups[:2]
    gap = _behind(second, first, found)
    noise, freedom, source = _noise(groups, found)
    threshold = _t95(freedom) * noise * math.sqrt(1 / len(first) + 1 / len(second))
    near = [group for group in groups[1:] if _behind(group, first, found) <= threshold]
    is_clear = gap > threshold if source else None
    # Who is near is only known with the noise; without it the next two are compared.
    again = [first, *(near if source else groups[1:3])][:_MOST_REPEATED]
    repeat = () if is_clear and source == "repeats" else tuple(group[0].number for group in again)
    return Lead(first[0].number, second[0].number, gap, noise, source, is_clear, repeat)


def _by_point(found: Finding) -> list[list[Trial]]:
    """Trials that differ in nothing but their seed, of those that trained to the end where these are several points."""
    whole = _groups(filter(_is_whole, found.ranked))
    return whole if len(whole) > 1 else _groups(found.ranked)


def _groups(trials: Iterable[Trial]) -> list[list[Trial]]:
    """By point, each as far as its group's longest was trained; of those with the same seed too the first, as the
    others are the same training once more and tell nothing of seeds."""
    groups: dict[str, dict[Any, Trial]] = {}
    for trial in trials:
        point = {path: value for path, value in trial.point.items() if path != SEED}
        groups.setdefault(json.dumps(point, sort_keys=True, default=str), {}).setdefault(trial.point.get(SEED), trial)
    found = []
    for group in groups.values():
        longest = max(trial.length for trial in group.values())
        found.append([trial for trial in group.values() if trial.length == longest])
    return found


def _mean(group: Sequence[Trial]) -> float:
    return fmean(map(value_of, group))


def _behind(group: Sequence[Trial], best: Sequence[Trial], found: Finding) -> float:
    ours, theirs = _mean(group), _mean(best)
    return 0.0 if ours == theirs else found.sign * (ours - theirs)  # the same infinity less itself is no number


def _noise(groups: Sequence[Sequence[Trial]], found: Finding) -> tuple[float, int, str]:
    """Standard deviation, its degrees of freedom, and where it is from."""
    finite = ([value for value in map(value_of, group) if math.isfinite(value)] for group in groups)
    repeated = [values for values in finite if len(values) > 1]
    if freedom := sum(len(values) - 1 for values in repeated):
        pooled = sum((len(values) - 1) * variance(values) for values in repeated) / freedom
        return math.sqrt(pooled), freedom, "repeats"
    bends = [bend for trial in found.ranked[:10] for bend in _bends(trial)]
    if len(bends) < 3:
        return 0.0, 1, ""
    # With independent noise of variance v a second difference (1, -2, 1) has the variance (1 + 4 + 1) v.
    return math.sqrt(fmean(bend**2 for bend in bends) / 6), len(bends), "curves"


def _bends(trial: Trial) -> Iterator[float]:
    """Second differences of the last half of a curve whose lengths are equally far apart."""
    tail = trial.curve[len(trial.curve) // 2 :]
    steps = {round(after.length - before.length, 9) for before, after in pairwise(tail)}
    if len(tail) < 3 or len(steps) > 1:
        return
    values = [one.value for one in tail]
    yield from (
        one - 2 * two + three
        for one, two, three in zip(values, values[1:], values[2:], strict=False)
        if math.isfinite(one - 2 * two + three)
    )


def _t95(freedom: int) -> float:
    # Beyond the table the quantile of the normal distribution and a term for the rest: right to 0.01.
    return _T95[freedom - 1] if freedom <= len(_T95) else 1.645 + 1.6 / freedom
