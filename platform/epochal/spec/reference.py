"""The spec reference: every field of a job spec as a Markdown table, from the models themselves.

``python -m epochal.spec.reference`` (``make docs``) writes ``platform/docs/spec-reference.md``; with ``--check`` it
only says whether that file is current.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from epochal.spec.fields import sections
from epochal.spec.job import JobSpec
from epochal.spec.section import Section
from epochal.units import Bytes, Duration, Interval

PAGE = Path(__file__).parents[2] / "docs" / "spec-reference.md"

_INTRODUCTION = """\
# Every field of a job spec

Written by `make docs` from `platform/epochal/spec/`; a test holds it current. `epochal schema` prints the same as JSON
Schema for editors, `epochal validate FILE` checks a file, `epochal plan FILE` shows where each value came from, and
`-s path=value` overrides any field by the path given here.

- A field without a default must be given. `null` stands for "not set".
- Durations: `90s`, `10m`, `1h30m`, `2d`. Sizes: `512MiB`, `2GiB`. Intervals: `1ep` or `0.5ep` (epochs), `500steps`, or
  a duration.
- Unknown fields are refused, except where a table says that the entry's own parameters stand beside `name`.
"""
_TYPES = {"integer": "whole number", "number": "number", "boolean": "`true` or `false`", "string": "text"}
_UNITS = {Duration.pattern: "duration", Bytes.pattern: "size", Interval.pattern: "interval"}
_BOUNDS = {
    "minimum": "at least {:.15g}",
    "exclusiveMinimum": "above {:.15g}",
    "maximum": "at most {:.15g}",
    "exclusiveMaximum": "below {:.15g}",
}
_EXACT = 2**53 - 1
"""Whole numbers up to here are exact in JSON; a bound at it or beyond only says so, and is left out."""


def fields(section: type[Section] = JobSpec, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every field below ``section`` with its dotted path, sections before what they hold."""
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}", field
        for path, nested in nested_sections(f"{prefix}{name}", field):
            yield from fields(nested, f"{path}.")


def nested_sections(path: str, field: FieldInfo) -> list[tuple[str, type[Section]]]:
    """The sections that a field may hold, each with its path; those of a mapping's values are at ``<path>.*``."""
    if get_origin(field.annotation) is dict:
        return [(f"{path}.*", section) for section in sections(get_args(field.annotation)[1])]
    return [(path, section) for section in sections(field.annotation)]


def describe(field: FieldInfo) -> str:
    """What a field means: its own docstring, else that of the section it holds; empty where nobody said."""
    if field.description:
        return " ".join(field.description.split())
    held = sections(field.annotation)
    return " ".join((held[0].__doc__ or "").split()) if len(held) == 1 else ""


def markdown() -> str:
    """The whole page."""
    return _INTRODUCTION + "".join(_tables("", JobSpec))


def _tables(path: str, section: type[Section]) -> Iterator[str]:
    schema = section.model_json_schema()["properties"]
    yield f"\n## `{path}`\n" if path else "\n## The job\n"
    if section.__doc__:
        yield f"\n{' '.join(section.__doc__.split()).replace('``', '`')}\n"
    if section.model_config["extra"] == "allow":
        yield "\nThe entry's own parameters stand beside `name`.\n"
    yield "\n| field | type | default | meaning |\n|---|---|---|---|\n"
    for name, field in section.model_fields.items():
        cells = (f"`{name}`", _type(schema[name]), _default(field), describe(field).replace("``", "`"))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
    for name, field in section.model_fields.items():
        for nested_path, nested in nested_sections(f"{path}.{name}" if path else name, field):
            yield from _tables(nested_path, nested)


def _type(schema: dict[str, Any]) -> str:
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(_type(option) for option in options if option.get("type") != "null"))
    if "$ref" in schema:
        return "section"
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type")
    if kind == "array":
        return f"list of {_type(schema['items'])}"
    if kind == "object":
        return "mapping"
    bounds = [text.format(schema[key]) for key, text in _BOUNDS.items() if abs(schema.get(key, inf)) < _EXACT]
    return ", ".join([_UNITS.get(schema.get("pattern", ""), _TYPES.get(kind or "", "any value")), *bounds])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Section):
        return "its own defaults"
    return f"`{value if isinstance(value, (Duration, Bytes, Interval)) else json.dumps(value)}`"


def main(arguments: list[str]) -> None:
    """Write the page, or with ``--check`` end with an error where it is not current."""
    if arguments != ["--check"]:
        PAGE.write_text(markdown(), encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != markdown():
        raise SystemExit(f"{PAGE.name} is not current: make docs")


if __name__ == "__main__":
    main(sys.argv[1:])
