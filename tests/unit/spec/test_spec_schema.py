"""The published JSON Schema agrees with what the loader takes."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from spec_texts import FULL, SMALL

from epochal.spec.schema import schema
from epochal.spec.source import parse


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    Draft202012Validator.check_schema(schema())
    return Draft202012Validator(schema())


@pytest.mark.parametrize("text", [SMALL, FULL])
def test_specs_are_valid_against_it(validator: Draft202012Validator, text: str) -> None:
    assert list(validator.iter_errors(parse(text, "job.yaml")[0].plain())) == []


@pytest.mark.parametrize(
    "line", ["priority: 101", "unknown: 1", "resources: {workers: two}", "limits: {max_duration: 5}", "sweep: {}"]
)
def test_mistakes_are_not(validator: Draft202012Validator, line: str) -> None:
    assert list(validator.iter_errors(parse(f"{SMALL}{line}\n", "job.yaml")[0].plain())) != []


def test_defaults_read_as_a_user_writes_them() -> None:
    described = schema()["$defs"]
    assert described["Checkpoint"]["properties"]["every"]["default"] == "1ep"
    assert described["Train"]["properties"]["validate_every"]["default"] == "1ep"


def test_every_field_is_described() -> None:
    described = schema()
    bare = [
        f"{name}.{field}"
        for name, section in [("JobSpec", described), *described["$defs"].items()]
        for field, facts in section.get("properties", {}).items()
        if not _description(described, facts)
    ]
    assert bare == []


def _description(described: dict[str, Any], facts: dict[str, Any]) -> str:
    inner = [facts, *facts.get("anyOf", []), *facts.get("oneOf", [])]
    named = [described["$defs"][part["$ref"].rpartition("/")[2]] for part in inner if "$ref" in part]
    return next((str(part["description"]) for part in [*inner, *named] if "description" in part), "")
