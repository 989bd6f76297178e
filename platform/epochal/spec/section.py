"""What every part of a job spec is built from: strict, frozen pydantic models."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

STORED = "stored"
"""Validation context of specs read back from the ledger."""


class Section(BaseModel):
    """Strict on input (unknown keys and near-miss types are refused) and frozen afterwards.

    What was stored may have been written by a newer version: read with the context ``STORED``, unknown keys are
    dropped. (pydantic's own ``extra="ignore"`` would also drop the parameters that a ``Choice`` carries.)
    """

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )

    @model_validator(mode="before")
    @classmethod
    def _lenient_where_stored(cls, value: Any, info: ValidationInfo) -> Any:
        if info.context == STORED and isinstance(value, dict) and cls.model_config["extra"] == "forbid":
            return {key: item for key, item in value.items() if key in cls.model_fields}
        return value


class Component(Section):
    """A catalog entry by name, its parameters nested: ``{name: cnn, params: {channels: [32, 64]}}``."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    """A name that `epochal models|datasets|tasks` lists, or `module:Class` from your own `code.dir`."""
    params: dict[str, Any] = {}
    """The entry's own parameters; `epochal models NAME` describes them."""


def is_import_path(name: str) -> bool:
    """Whether the name of an entry means the user's own code: ``module:attribute``."""
    return ":" in name


class Choice(Section):
    """A catalog entry by name, its parameters beside it: ``{name: adamw, lr: 1e-3, weight_decay: 0.01}``."""

    model_config = ConfigDict(extra="allow")

    name: Annotated[str, Field(min_length=1, max_length=200)]

    @property
    def params(self) -> dict[str, Any]:
        return dict(self.model_extra or {})
