"""The bodies of requests about sweeps, and how answers look, for OpenAPI."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from epochal.ledger.sweep_values import MOST_TRIALS, Ask, StoredInput, SweepRequest, TrialRecord
from epochal.server.schemas import LARGEST, Body, Document, Question, Text, answer_of
from epochal.sweeps.trials import TrialState

MOST_TOLD = 1000
"""Inputs, and trials, in one request."""
MOST_MEASURED = 10_000
"""Lengths at which one trial is measured."""

Number = Annotated[float, Field(allow_inf_nan=False)] | Literal["nan", "inf", "-inf"]
_Seq = Annotated[int, Field(ge=0, le=LARGEST)]
_Limit = Annotated[int, Field(ge=1, le=1000)]
_Pair = Annotated[list[Number], Field(min_length=2, max_length=2)]
_RunId = Annotated[str, Field(min_length=1, max_length=200)]
_Key = Annotated[str, Field(min_length=1, max_length=200)]

TRIALS = answer_of("Trials", trials=list[TrialRecord], next=int | None)
INPUTS = answer_of("Inputs", inputs=list[StoredInput], next=int | None)
REQUESTS = answer_of("SweepRequests", requests=list[SweepRequest])
WRITTEN = answer_of("Written", newest=int)


class TrialFilter(Question):
    state: list[TrialState] = []
    after: Annotated[int, Field(ge=-1, le=LARGEST)] = -1
    limit: _Limit = 1000


class InputFilter(Question):
    after: _Seq = 0
    limit: _Limit = 1000


class After(Question):
    after: _Seq = 0


class AskedOfSweep(Body):
    """``key``: the client's own id of this request; asking again with it asks for nothing more."""

    key: _Key
    ask: Ask


class InputBody(Body):
    """``key``: that of the request it was made of."""

    body: Document
    key: _Key | None = None


class TrialBody(Body):
    """A trial as it is now; its times are the ledger's own."""

    number: Annotated[int, Field(ge=0, le=2 * MOST_TRIALS)]
    point: Document
    state: Annotated[TrialState, Field(strict=False)]
    length: Number = 0.0
    until: Number = 0.0
    value: Number | None = None
    metrics: dict[str, Number] = {}
    curve: Annotated[list[_Pair], Field(max_length=MOST_MEASURED)] = []
    run_id: _RunId | None = None
    reason: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    message: Text = ""

    @property
    def record(self) -> TrialRecord:
        told: dict[str, Any] = self.model_dump(mode="json")
        return TrialRecord.from_dict(told)


class TrialRun(Body):
    number: Annotated[int, Field(ge=0, le=2 * MOST_TRIALS)]
    run_id: _RunId


class TrialRuns(Body):
    trials: Annotated[list[TrialRun], Field(max_length=MOST_TOLD)]


class Told(Body):
    """``after``: the newest input that the writer knows of."""

    after: _Seq
    inputs: Annotated[list[InputBody], Field(max_length=MOST_TOLD)] = []
    trials: Annotated[list[TrialBody], Field(max_length=MOST_TOLD)] = []
