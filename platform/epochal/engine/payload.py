"""What a training worker is given. Without torch, which the driver can do without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

TRAIN = "epochal.engine.train:train"
"""The target of a gang that trains."""

PACKAGE = "epochal.engine.packaging:package"
"""The target of the one worker that packages the trained model afterwards; it is given the resolved job spec."""


@dataclass(frozen=True)
class TrainPayload:
    """``spec`` is the resolved job spec, ``data_folder`` what relative paths of its data start from."""

    spec: Mapping[str, Any]
    data_folder: str


TRIALS = "epochal.engine.trial_worker:serve"
"""The target of a gang that is kept, and trains segments of trials as they come."""


@dataclass(frozen=True)
class TrialsPayload:
    """``hub`` is the host and port of the driver's ``Hub``, ``key`` what opens it, ``caller`` who calls there. The gang
    in the first ``slot`` tells what the data is taken for."""

    data_folder: str
    hub: tuple[str, int]
    key: str
    caller: int
    slot: int


@dataclass(frozen=True)
class TrialSegment:
    """A trial trains to a length. ``spec`` is the trial's resolved one, ``folder`` its own, relative to the job's.

    ``until`` is in ``unit``, None for all of it; see ``training.segment.Segment`` for the rest.
    """

    trial: int
    folder: str
    spec: Mapping[str, Any]
    until: float | None
    unit: Literal["epochs", "steps"]
    saved: bool
    beats: float | None = None
