"""How a sweep stands, as one value: for the page, for ``epochal status``, and for who watches."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from epochal.spec.job import Objective
from epochal.sweeps.ranking import ranking
from epochal.sweeps.trials import Trial, TrialState


@dataclass(frozen=True)
class SweepProgress:
    """``wanted`` counts the trials that it is to have; ``best`` is the best of those that trained to their full length,
    or before there is one the best so far."""

    objective: Objective
    trials: Sequence[Trial]
    wanted: int
    best: Trial | None

    def count(self, state: TrialState) -> int:
        return sum(trial.state is state for trial in self.trials)

    @property
    def done(self) -> int:
        return sum(trial.state.is_over for trial in self.trials)

    def leaders(self, most: int) -> list[Trial]:
        """The best trials so far, the best first, by their newest values."""
        rank = ranking(self.objective.mode)
        measured = [trial for trial in self.trials if trial.curve and trial.state is not TrialState.FAILED]
        return sorted(measured, key=lambda trial: rank(trial.curve[-1].value, trial.number))[:most]

    def document(self) -> dict[str, Any]:
        """JSON types, as the ledger keeps them with the job."""
        states = Counter(trial.state for trial in self.trials)
        best = self.best.curve[-1].value if self.best is not None else math.nan
        return {
            "trials": self.wanted,
            "done": self.done,
            "running": states[TrialState.RUNNING],
            "failed": states[TrialState.FAILED],
            **({"best": {"trial": self.best.number, "value": best}} if self.best is not None else {}),
        }
