"""What pydantic found wrong, in the words of someone who writes a job spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from epochal.errors import Problem, did_you_mean
from epochal.spec.fields import KEY, Found, follow, known_paths, sections
from epochal.spec.job import PATTERNS, JobSpec
from epochal.spec.section import Choice, Component, Section
from epochal.spec.source import describe
from epochal.spec.space import DISTRIBUTIONS
from epochal.spec.tree import Path, dotted

_PATTERN_WORDS = {
    PATTERNS["name"]: "lower-case letters, digits and dashes between them, at most 63 characters",
    PATTERNS["metric"]: "a metric's name such as val/accuracy",
    PATTERNS["tag"]: "letters, digits, dots, dashes and underscores, at most 100 characters",
    PATTERNS["variable"]: "a variable's name: letters, digits and underscores, not starting with a digit",
}

_SEARCHED = ("dist", "choice", "value")

Context = Mapping[str, Any]

_EXPECTED: dict[str, Callable[[Context], str]] = {
    "int_type": lambda _: "a whole number",
    "float_type": lambda _: "a number",
    "string_type": lambda _: "text",
    "bool_type": lambda _: "true or false",
    "list_type": lambda _: "a list",
    "dict_type": lambda _: "a mapping",
    "model_type": lambda _: "a mapping of fields",
    "finite_number": lambda _: "a finite number",
    "literal_error": lambda ctx: (
        f"{'one of ' if ' or ' in ctx['expected'] else ''}{ctx['expected'].replace(chr(39), '')}"
    ),
    "greater_than": lambda ctx: f"more than {_number(ctx['gt'])}",
    "greater_than_equal": lambda ctx: f"at least {_number(ctx['ge'])}",
    "less_than": lambda ctx: f"less than {_number(ctx['lt'])}",
    "less_than_equal": lambda ctx: f"at most {_number(ctx['le'])}",
    "string_too_short": lambda ctx: _count("at least", ctx["min_length"], "character"),
    "string_too_long": lambda ctx: _count("at most", ctx["max_length"], "character"),
    "too_short": lambda ctx: _count("at least", ctx["min_length"], "entry"),
    "too_long": lambda ctx: _count("at most", ctx["max_length"], "entry"),
    "string_pattern_mismatch": lambda ctx: _PATTERN_WORDS.get(ctx["pattern"], f"text matching {ctx['pattern']}"),
}
"""pydantic's type of error -> what was expected."""


@dataclass(frozen=True)
class Finding:
    """A problem and the path it is at; ``missing`` where nothing is there yet, ``at_key`` where the key is wrong."""

    path: Path
    problem: Problem
    missing: bool = False
    at_key: bool = False


def field_problems(error: ValidationError, root: type[Section] = JobSpec) -> list[Finding]:
    """One problem for each path that pydantic refused in a spec of that kind. Lines are filled in by the loader."""
    findings: dict[Path, Finding] = {}
    for detail in error.errors(include_url=False):
        found, kind = follow(detail["loc"], root), detail["type"]
        at_key = kind == "extra_forbidden" or (detail["loc"][-1:] == (KEY,) and found.section is None)
        # Of a union pydantic tells what each member would have: the first stands for all.
        findings.setdefault(found.path, Finding(found.path, _problem(detail, found, root), kind == "missing", at_key))
    return list(findings.values())


def _problem(detail: ErrorDetails, found: Found, root: type[Section]) -> Problem:
    path, kind, value = dotted(found.path), detail["type"], detail["input"]
    if kind == "missing":
        return Problem(path, "is required", hint=_summary(found))
    if kind == "extra_forbidden":
        return Problem(path, "there is no such field", value=value, hint=_where_it_belongs(found, root))
    message, hint = wording(detail)
    return Problem(path, message, value=value, hint=hint or _shape(found, value))


def wording(detail: ErrorDetails) -> tuple[str, str]:
    """What was expected and what was given, and what to write instead; for all but missing and unknown fields."""
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind in _EXPECTED:
        message = f"expected {_EXPECTED[kind](context)}, got {describe(value)}"
    else:
        told = str(context.get("error") or detail["msg"])
        message = f"{told}, got {describe(value)}" if told.startswith("expected") else told
    return message, _hint(kind, value, context)


def _hint(kind: str, value: Any, context: Context) -> str:
    if kind == "literal_error" and isinstance(value, str):
        # pydantic tells the choices as text alone: `'a', 'b' or 'c'`.
        choices = tuple(context["expected"].replace("'", "").replace(" or ", ", ").split(", "))
        guess = did_you_mean(value, choices)
        return guess if guess.startswith("did") else ""
    if kind == "string_type" and isinstance(value, bool | int | float):
        return "put it in quotes"
    if kind in {"int_type", "float_type"} and isinstance(value, str) and value.strip().lstrip("-").isdigit():
        return "remove the quotes"
    if kind == "int_type" and isinstance(value, float) and value.is_integer():
        return f"write {int(value)}"
    if kind == "bool_type" and str(value).lower() in {"yes", "no", "on", "off"}:
        return "write true" if str(value).lower() in {"yes", "on"} else "write false"
    return ""


def _shape(found: Found, value: Any) -> str:
    """How a field of several parts is written, where a single value was given for it."""
    if dotted(found.path) == "resources.workers" and not isinstance(value, bool | int):
        return "or a section with min and max"
    if found.path[:2] == ("sweep", "space") and isinstance(value, Mapping):
        return _near_distribution(value)
    field = found.section.model_fields.get(str(found.path[-1])) if found.section is not None else None
    named = field is not None and any(issubclass(section, Component | Choice) for section in sections(field.annotation))
    return f"write {{name: {value}}}" if named and isinstance(value, str) else ""


def _near_distribution(written: Mapping[str, Any]) -> str:
    near = [did_you_mean(str(written["dist"]), DISTRIBUTIONS)] if "dist" in written else []
    near += [did_you_mean(str(key), _SEARCHED) for key in written if key not in _SEARCHED]
    return next((guess for guess in near if guess.startswith("did")), "")


def _where_it_belongs(found: Found, root: type[Section]) -> str:
    """A near name in this section, the same name in another, or the list of what there is."""
    name = str(found.path[-1])
    here = tuple(found.section.model_fields) if found.section is not None else ()
    guess = did_you_mean(name, here)
    if guess.startswith("did"):
        return guess
    leaves: dict[str, list[str]] = {}
    for known in known_paths(root):
        leaves.setdefault(known.rpartition(".")[2], []).append(known)
    if len(leaves.get(name, ())) in (1, 2, 3):
        return f"it belongs at {' or '.join(leaves[name])}"
    if found.section is not None and issubclass(found.section, Component):
        return f"parameters go under {dotted((*found.path[:-1], 'params', name))}"
    near = [path for leaf in get_close_matches(name, leaves, n=2, cutoff=0.7) for path in leaves[leaf]]
    return f"did you mean {' or '.join(near)}?" if 1 <= len(near) <= 3 else guess


def _summary(found: Found) -> str:
    """The first line of the field's description, or of its section's."""
    field = found.section.model_fields.get(str(found.path[-1])) if found.section is not None else None
    if field is None:
        return ""
    kind = field.annotation
    own = kind.__doc__ if isinstance(kind, type) and issubclass(kind, Section) else ""
    return (field.description or own or "").strip().partition("\n")[0].rstrip(".")


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _count(bound: str, count: int, noun: str) -> str:
    plural = {"entry": "entries"}.get(noun, f"{noun}s")
    return f"{bound} {count:,} {noun if count == 1 else plural}"
