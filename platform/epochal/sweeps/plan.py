"""What a sweep would try, and what that costs, as far as it is known before a trial has run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import islice
from math import exp
from typing import Any

from epochal.spec.job import JobSpec
from epochal.spec.point import spec_at
from epochal.spec.space import ChoiceOf, Constant, Entry, LogNormal, Normal
from epochal.sweeps.check import trial_scheduler_of
from epochal.sweeps.ranking import full_length
from epochal.sweeps.searcher import sweep_of
from epochal.sweeps.searchers.grid import combinations
from epochal.sweeps.space import Space
from epochal.sweeps.trial_scheduler import Rung


@dataclass(frozen=True)
class Field:
    """A searched field: its path, what it draws, and the condition under which it does."""

    path: str
    draws: str
    when: str


@dataclass(frozen=True)
class SweepPlan:
    """``trials`` are those of the spec, fewer where a grid has fewer points. Lengths are in ``unit``.

    ``rungs`` say about how many trials train how far. ``cost`` is the sum of all lengths then; ``full_cost`` is that
    of trials which all train to the end.
    """

    space: tuple[Field, ...]
    trials: int
    own_points: int
    unit: str
    rungs: tuple[Rung, ...]
    cost: float
    full_cost: float
    workers: int
    """Of a trial."""
    concurrency: int | None
    """Trials at a time at most; None where only the cluster says."""
    pack: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def plan_sweep(spec: JobSpec) -> SweepPlan:
    """
    Raises:
        UsageError: the spec is no sweep.
        NotFoundError: its trial scheduler is not installed here.
    """
    sweep = sweep_of(spec)
    searched, trials = sweep.searched, sweep.trials
    if sweep.search.name == "grid":
        # No further than `trials`: a grid of ten fields has more points than can be gone through.
        trials = min(trials, sum(1 for _ in islice(combinations(Space(searched)), trials)))
    rungs = trial_scheduler_of(spec).rungs(trials)
    lengths = [0.0, *(rung.length for rung in rungs)]
    return SweepPlan(
        space=tuple(Field(path, _draws(entry), _when(entry)) for path, entry in searched.items()),
        trials=trials,
        own_points=len(sweep.points),
        unit=spec.train.unit,
        rungs=rungs,
        cost=sum(rung.trials * (rung.length - before) for rung, before in zip(rungs, lengths, strict=False)),
        full_cost=trials * full_length(spec),
        workers=spec.resources.max_workers,
        concurrency=sweep.concurrency,
        pack=str(sweep.pack),
    )


def first_corner(spec: JobSpec) -> JobSpec:
    """The training of a trial with everything searched at its lowest, or first; a spec that is no sweep as it is."""
    if spec.sweep is None:
        return spec
    return spec_at(spec.model_dump(mode="json"), Space(spec.sweep.searched).point(lambda dimension: 0.0))


def _draws(entry: Entry) -> str:
    if isinstance(entry, Constant):
        return f"always {entry.value}"
    if isinstance(entry, ChoiceOf):
        return f"one of {', '.join(map(str, entry.choice))}"
    low, high = entry.bounds
    step = f" in steps of {entry.spacing:g}" if entry.spacing is not None and entry.spacing != 1 else ""
    log = " on a log scale" if getattr(entry, "log", False) else ""
    about = ""
    if isinstance(entry, Normal):
        about = f"about {entry.mean:g}, sigma {entry.sigma:g}, from "
    elif isinstance(entry, LogNormal):
        about = f"about {exp(entry.mean):.3g}, a factor of {exp(entry.sigma):.3g}, from "
    return f"{entry.dist} {about}{low:.6g} to {high:.6g}{step}{log}"


def _when(entry: Entry) -> str:
    return " and ".join(f"{path} is {' or '.join(map(str, values))}" for path, values in entry.when.items())
