"""The job spec as JSON Schema (draft 2020-12), for editors and other programs."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from epochal.spec.job import JobSpec
from epochal.units import Bytes, Duration, Interval

EDITOR_LINE = "# yaml-language-server: $schema={file}"
"""The first line of a spec that makes editors check it against a schema file."""


def schema() -> dict[str, Any]:
    """The schema of the whole spec. What depends on several fields, and on the catalog, `epochal validate` checks."""
    described = JobSpec.model_json_schema(schema_generator=_Generator)
    return {"$schema": _Generator.schema_dialect, "title": "Epochal job spec", **_without_titles(described)}


class _Generator(GenerateJsonSchema):
    def encode_default(self, dft: Any) -> Any:
        """Defaults with a unit as a user writes them: ``1ep``."""
        return str(dft) if isinstance(dft, Duration | Bytes | Interval) else super().encode_default(dft)


def _without_titles(value: Any, names_below: bool = False) -> Any:
    """Without pydantic's titles, which repeat each field's name; a field called ``title`` would stay."""
    if isinstance(value, list):
        return [_without_titles(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        # Below these two, keys are names of fields, where `title` and `properties` would mean just that.
        key: _without_titles(item, names_below=key in {"properties", "$defs"} and not names_below)
        for key, item in value.items()
        if names_below or key != "title"
    }
