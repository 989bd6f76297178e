"""The tree of errors: exit codes, texts, and the way between processes."""

from __future__ import annotations

import json
import pickle

import pytest

from epochal import errors
from epochal.errors import (
    EpochalError,
    NonFiniteError,
    NonFiniteLossError,
    NonFiniteStateError,
    NotFoundError,
    Problem,
    SpecError,
    did_you_mean,
)

EXAMPLES: list[EpochalError] = [
    EpochalError("it broke", "mend it"),
    errors.UsageError("wrong", "like this"),
    SpecError("job.yaml", (Problem("a.b", "is wrong", 3, 4, value=5, hint="make it right"), Problem("", "is odd"))),
    NotFoundError("architecture", "cn", ("cnn", "mlp")),
    errors.ConflictError("taken"),
    errors.StaleLeaseError("job-1", 1, 2, "RUNNING"),
    errors.OlderLedgerError("written by an older version"),
    errors.UnreachableError("no answer"),
    errors.AuthError("no token"),
    errors.ForbiddenError("not yours"),
    errors.TooLargeError("too much"),
    errors.CodeError("cannot be packed"),
    errors.CapacityError("no room", permanent=False),
    errors.TrainingError("failed"),
    NonFiniteError(12, 1),
    NonFiniteLossError(7, 1, float("inf")),
    NonFiniteStateError(12, 1, "model.head.weight"),
    errors.DeviceError("no GPU"),
    errors.CheckpointError("damaged"),
    errors.CheckpointFormatError("checkpoints/step-00000008", 2, 1),
]


def test_every_error_has_an_example_here() -> None:
    def below(kind: type[EpochalError]) -> set[type[EpochalError]]:
        return {kind}.union(*map(below, kind.__subclasses__()))

    assert {kind for kind in below(EpochalError) if kind.__module__ == errors.__name__} == set(map(type, EXAMPLES))


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling(error: EpochalError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), again.message, again.hint, again.exit_code) == (
        str(error), error.message, error.hint, error.exit_code,
    )  # fmt: skip
    assert vars(again) == vars(error)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_survives_http(error: EpochalError) -> None:
    again = errors.from_document(json.loads(json.dumps(errors.as_document(error))))
    assert type(again) is type(error)
    assert (str(again), again.hint) == (str(error), error.hint)
    assert vars(again) == vars(error)


def test_an_error_of_another_version_is_still_told() -> None:
    for document in ({"kind": "NewError", "arguments": [1]}, {"kind": "StaleLeaseError", "arguments": [1]}):
        error = errors.from_document({**document, "message": "it broke", "hint": "mend it"})
        assert (type(error), error.message, error.hint) == (EpochalError, "it broke", "mend it")


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_the_tree_at_the_top_is_the_tree(error: EpochalError) -> None:
    line = next(line for line in str(errors.__doc__).splitlines() if type(error).__name__ in line.split())
    if "exit" in line:
        assert f"exit {error.exit_code}" in line


def test_a_problem_reads_as_one_line() -> None:
    problem = Problem("train.lr", "expected a number, got 'x'", 3, 4, hint="like 1e-3")
    assert str(problem) == "line 3, column 4: train.lr: expected a number, got 'x' (like 1e-3)"
    assert str(Problem("a", "is wrong", origin="--set")) == "--set: a: is wrong"
    assert str(Problem("", "the spec is empty")) == "the spec is empty"


def test_a_spec_s_problems_are_all_in_its_text() -> None:
    error = SpecError("job.yaml", (Problem("a", "is wrong", 1, 1), Problem("b", "is too", 2, 1)))
    assert str(error) == "job.yaml: 2 problems\n  line 1, column 1: a: is wrong\n  line 2, column 1: b: is too"


def test_the_closest_name_is_meant() -> None:
    assert did_you_mean("restnet", ("resnet", "cnn")) == "did you mean 'resnet'?"
    assert did_you_mean("zzz", ("cnn", "resnet")) == "known: cnn, resnet"
    assert did_you_mean("zzz", tuple(f"name{i}" for i in range(30))) == ""
    assert did_you_mean("x", ()) == ""
