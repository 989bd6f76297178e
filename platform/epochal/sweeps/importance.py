"""Which of the searched parameters the objective depends on, and how sure that is."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from epochal.sweeps.finding import Finding
from epochal.sweeps.trials import Trial

if TYPE_CHECKING:
    import numpy as np

LEAST_TRIALS = 12
_MOST_TRIALS = 500  # the newest: a forest takes as long as it has trials, and a report is waited for
_BOOTSTRAPS = 20
_TREES = 24
_SHUFFLES = 5


@dataclass(frozen=True)
class ParameterImportance:
    """``share``: of the variance of the trials' ranks, what is this parameter's doing, alone or with others: the mean
    over bootstraps; ``low`` and ``high`` are their 5th and 95th percentile."""

    path: str
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Importance:
    """The most important parameter first. ``n`` trials were compared at ``length``; ``explained`` is the share of the
    variance of ranks that forests tell of trials that they have not seen. ``missing`` says why there is nothing."""

    parameters: tuple[ParameterImportance, ...] = ()
    n: int = 0
    length: float = 0.0
    explained: float = 0.0
    missing: str = ""


@lru_cache(maxsize=1)  # a page and a picture of the same sweep are made one after the other
def importance(found: Finding) -> Importance:
    """Permutation importance (Breiman, Random Forests, Machine Learning 2001) on what each bootstrap sample leaves out:
    half of what shuffling a parameter adds to the error is its total-effect Sobol index (Gregorutti, Michel and
    Saint-Pierre, Correlation and Variable Importance in Random Forests, Statistics and Computing 2017). Each forest is
    of bagged trees, on samples of that sample.

    Trials are compared at one length, the longest that half of them and ``LEAST_TRIALS`` reached, and by their ranks: a
    trial that diverged counts as the worst, however far it went. The same trials give the same answer.
    """
    length, trials, values = _comparable(found)
    paths = [path for path in found.searched if len({json.dumps(t.point.get(path), default=str) for t in trials}) > 1]
    if len(trials) > 1 and not paths:
        return Importance(n=len(trials), length=length, missing="nothing that was searched differs between them")
    if len(trials) < LEAST_TRIALS:
        needed = f"{LEAST_TRIALS} trials that were measured at one length"
        return Importance(n=len(trials), length=length, missing=f"it takes {needed}; there are {len(trials)}")
    try:
        return _measured(paths, trials, values, length)
    except ImportError:
        return Importance(n=len(trials), length=length, missing="it takes scikit-learn: `pip install epochal[cluster]`")


def _comparable(found: Finding) -> tuple[float, list[Trial], list[float]]:
    curves = [(trial, {one.length: one.value for one in trial.curve}) for trial in found.trials if trial.curve]
    reached = Counter(length for _, curve in curves for length in curve)
    enough = [length for length, count in reached.items() if count >= max(LEAST_TRIALS, len(curves) / 2)]
    length = max(enough) if enough else max(reached, key=lambda one: (reached[one], one), default=0.0)
    there = [(trial, found.sign * curve[length]) for trial, curve in curves if length in curve][-_MOST_TRIALS:]
    return length, [trial for trial, _ in there], [math.inf if math.isnan(value) else value for _, value in there]


def _measured(paths: Sequence[str], trials: Sequence[Trial], values: Sequence[float], length: float) -> Importance:
    import numpy as np
    from sklearn.tree import DecisionTreeRegressor

    x = np.column_stack([_column([trial.point.get(path) for trial in trials]) for path in paths]).astype(np.float32)
    places = {value: place for place, value in enumerate(sorted(set(values)))}
    ranks = np.array([places[value] for value in values], float)
    y = (ranks - ranks.mean()) / (ranks.std() or 1.0)
    random = np.random.default_rng(0)
    shares: list[list[float]] = []
    explained: list[float] = []
    for _ in range(_BOOTSTRAPS):
        drawn = random.integers(len(y), size=len(y))
        out = np.setdiff1d(np.arange(len(y)), drawn)
        trees = []
        for seed in range(_TREES):
            rows = random.choice(drawn, size=len(y))
            tree = DecisionTreeRegressor(min_samples_leaf=2, random_state=seed)
            trees.append(tree.fit(x[rows], y[rows], check_input=False))
        error = _error(trees, x[out], y[out])
        explained.append(1 - error)
        without = (_shuffled(x[out], index, random) for index in range(len(paths)))
        shares.append([(_error(trees, many, np.tile(y[out], _SHUFFLES)) - error) / 2 for many in without])
    table = np.array(shares)
    low, high = np.percentile(table, [5, 95], axis=0)
    found = [
        ParameterImportance(path, *map(float, row))
        for path, *row in zip(paths, table.mean(axis=0), low, high, strict=True)
    ]
    found.sort(key=lambda one: -one.share)
    return Importance(tuple(found), len(y), length, float(np.mean(explained)))


def _error(trees: Sequence[Any], x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> float:
    """The mean squared error of the forest."""
    # `x` is float32 already: that, and finite, is what the check makes sure of for each of the trees.
    told = sum(tree.predict(x, check_input=False) for tree in trees) / len(trees)
    return float(((told - y) ** 2).mean())


def _shuffled(x: np.ndarray[Any, Any], index: int, random: np.random.Generator) -> np.ndarray[Any, Any]:
    """The rows several times over, each time with one column in another order."""
    import numpy as np

    shuffled = np.tile(x, (_SHUFFLES, 1))
    shuffled[:, index] = np.concatenate([random.permutation(x[:, index]) for _ in range(_SHUFFLES)])
    return shuffled


def _column(values: Sequence[Any]) -> list[float]:
    """Numbers as they are, anything else by its place among the values; what is not given lies below all others."""
    given = [value for value in values if value is not None]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in given):
        below = min(given) - (max(given) - min(given)) - 1.0
        return [float(below if value is None else value) for value in values]
    known = sorted({json.dumps(value, sort_keys=True, default=str) for value in given})
    places = {text: float(place) for place, text in enumerate(known)}
    return [-1.0 if value is None else places[json.dumps(value, sort_keys=True, default=str)] for value in values]
