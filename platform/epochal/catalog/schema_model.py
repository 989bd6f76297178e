"""From an entry's JSON Schema back to a pydantic model, so that parameters are checked without importing the entry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, Field, create_model

from epochal.spec.params import STRICT

Schema = Mapping[str, Any]

_SCALARS: dict[str, Any] = {"integer": int, "number": float, "string": str, "boolean": bool, "null": None}
_BOUNDS = {
    "minimum": "ge",
    "exclusiveMinimum": "gt",
    "maximum": "le",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
    "minLength": "min_length",
    "maxLength": "max_length",
    "pattern": "pattern",
}


def model_of(name: str, schema: Schema) -> type[BaseModel]:
    """A model that accepts and refuses what ``schema`` (of an object) does, in the words of the original.

    Raises:
        ValueError: the schema says something that is not understood here.
    """
    definitions, required = schema.get("$defs", {}), schema.get("required", ())
    fields: dict[str, Any] = {
        key: (_annotation(value, definitions), ... if key in required else value.get("default"))
        for key, value in schema.get("properties", {}).items()
    }
    return create_model(name, __config__=STRICT, **fields)


def _annotation(schema: Schema, definitions: Schema) -> Any:
    if "$ref" in schema:
        return _annotation(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        return Union[tuple(_annotation(one, definitions) for one in schema["anyOf"])]  # noqa: UP007 - made at run time
    if "enum" in schema or "const" in schema:
        return Literal[tuple(schema.get("enum", [schema.get("const")]))]
    kind = schema.get("type")
    if kind == "array":
        return _array(schema, definitions)
    if kind == "object":
        closed = "properties" in schema and schema.get("additionalProperties") is False
        return model_of(schema.get("title", "section"), {**schema, "$defs": definitions}) if closed else dict[str, Any]
    if kind not in _SCALARS:
        raise ValueError(f"a JSON Schema of type {kind!r} is not understood")
    bounds = {ours: schema[theirs] for theirs, ours in _BOUNDS.items() if theirs in schema}
    return Annotated[_SCALARS[kind], Field(**bounds)] if bounds else _SCALARS[kind]


def _array(schema: Schema, definitions: Schema) -> Any:
    if "prefixItems" in schema:
        items = tuple(_annotation(one, definitions) for one in schema["prefixItems"])
        return Annotated[tuple[items], Field(strict=False)]  # type: ignore[valid-type]
    item: Any = _annotation(schema["items"], definitions) if schema.get("items") else Any
    bounds = Field(min_length=schema.get("minItems"), max_length=schema.get("maxItems"))
    return Annotated[list[item], bounds]
