"""An entry's parameters against their model: every problem at once, in the words of the spec. Needs pydantic alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from epochal.errors import Problem, SpecError, did_you_mean
from epochal.spec.problems import wording

ModelT = TypeVar("ModelT", bound=BaseModel)
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)
"""How parameters are checked, here by their models and elsewhere by their JSON Schema."""


def validated(model: type[ModelT], params: Mapping[str, Any], path: str) -> ModelT:
    """``params`` as ``model``; ``path`` is where they stand in the spec (``model.params``).

    Raises:
        SpecError: with one problem for each wrong parameter.
    """
    try:
        return model.model_validate(dict(params))
    except ValidationError as error:
        raise SpecError("the job spec", tuple(problems_of(error, model, path))) from None


def problems_of(error: ValidationError, model: type[BaseModel], path: str, beside: Iterable[str] = ()) -> list[Problem]:
    """What pydantic found, as problems with paths below ``path``; ``beside`` are the keys that the section itself has
    there."""
    return [
        _problem(details, (*(() if details["loc"][1:] else beside), *_known(model, details["loc"][:-1])), path)
        for details in error.errors(include_url=False)
    ]


def _known(model: type[BaseModel], section: Iterable[int | str]) -> tuple[str, ...]:
    """The fields of a ``section`` of the model; none where it is no model itself."""
    for step in section:
        field = model.model_fields.get(str(step))
        annotations = (field.annotation, *get_args(field.annotation)) if field else ()
        found = next((one for one in annotations if isinstance(one, type) and issubclass(one, BaseModel)), None)
        if found is None:
            return ()
        model = found
    return tuple(model.model_fields)


def _problem(details: ErrorDetails, known: tuple[str, ...], path: str) -> Problem:
    where = ".".join(str(step) for step in (path, *details["loc"]))
    if details["type"] == "extra_forbidden":
        name = str(details["loc"][-1])
        return Problem(where, "unknown parameter", value=details["input"], hint=did_you_mean(name, known))
    if details["type"] == "missing":
        return Problem(where, "is required")
    message, hint = wording(details)
    return Problem(where, message, value=details["input"], hint=hint)
