"""What `epochal run` says at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from epochal.errors import SpecError
from epochal.ledger.states import JobState


@dataclass(frozen=True)
class Summary:
    """The end of a job, or of this stretch of it.

    ``run_id`` is empty while MLflow has not answered yet; ``unsent`` then says what is kept for later, and ``problem``
    why. ``refused``: the workers found the spec, the data or the code wrong before the first step. ``metrics`` are
    the newest values, ``best`` is the objective's best value and its step; of a sweep, those of its best ``trial``,
    which tried ``point``, and ``report`` is the page that tells what it found.
    ``model`` is the folder of the final model, in MLflow's format; ``checkpoint`` that of the newest checkpoint of this
    attempt.
    """

    job: str
    state: str
    reason: str
    message: str
    attempts: int
    seconds: float
    run_id: str
    tracking_uri: str
    experiment: str
    experiment_id: str = ""
    unsent: str = ""
    problem: str = ""
    refused: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)
    best: tuple[float, int] | None = None
    trial: int | None = None
    point: Mapping[str, Any] = field(default_factory=dict)
    report: str | None = None
    model: str | None = None
    checkpoint: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def exit_code(self) -> int:
        """0 succeeded, 130 paused or stopped on request, 2 refused, 1 failed."""
        if self.state == JobState.SUCCEEDED:
            return 0
        failed = SpecError.exit_code if self.refused else 1
        return 130 if self.state in (JobState.PAUSED, JobState.STOPPED) else failed
