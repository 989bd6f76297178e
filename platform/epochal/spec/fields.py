"""The fields of the job spec by their path, read off the models themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import Tag

from epochal.spec.job import JobSpec
from epochal.spec.section import Component, Section
from epochal.spec.tree import Path

KEY = "[key]"
"""What pydantic adds to a location where the key of a mapping is wrong, not the value."""


@dataclass(frozen=True)
class Found:
    """Where a path leads: the path in the spec's own keys, and the section that its last key is looked up in."""

    path: Path
    section: type[Section] | None


def follow(location: Sequence[str | int], root: type[Section] = JobSpec) -> Found:
    """Translate a pydantic error's location, which also names the members of unions, into a path of the spec."""
    annotation: Any = root
    section: type[Section] | None = None
    path: list[str | int] = []
    for step in location:
        if step == KEY and path and section is None:
            continue  # the key of a mapping, where a section would have fields
        tagged = _tagged(annotation)
        if step in tagged:
            annotation = tagged[str(step)]
            continue
        section = _section(annotation)
        path.append(step)
        annotation = _below(annotation, section, step)
    return Found(tuple(path), section)


@cache
def known_paths(root: type[Section] = JobSpec) -> dict[str, type[Section]]:
    """Every field of the spec by its dotted path (``train.optimizer.lr``), with the section that it is in."""
    return dict(_fields_of(root, ""))


def closed(path: Sequence[str]) -> bool:
    """Whether ``path`` leads through fields of the spec alone, so that an unknown name in it is a mistake.

    Below ``params``, and beside the name of an optimizer or a schedule, anything may stand: the catalog checks it.
    """
    section: type[Section] | None = JobSpec
    for step in path:
        if section is None or section.model_config.get("extra") == "allow":
            return False
        field = section.model_fields.get(step)
        if field is None:
            return True
        if issubclass(section, Component) and step == "params":
            return False
        section = _section(field.annotation)
    return True


def _fields_of(section: type[Section], prefix: str) -> Iterator[tuple[str, type[Section]]]:
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}", section
        for below in sections(field.annotation):
            yield from _fields_of(below, f"{prefix}{name}.")


def _members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the annotation alone."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return get_args(annotation)
    return (annotation,)


def _tagged(annotation: Any) -> dict[str, Any]:
    """Members of a discriminated union by their tag."""
    found = {}
    for member in _members(annotation):
        for mark in get_args(member)[1:] if get_origin(member) is Annotated else ():
            if isinstance(mark, Tag):
                found[mark.tag] = get_args(member)[0]
    return found


def sections(annotation: Any) -> list[type[Section]]:
    """The sections among the members of an annotation."""
    bare = [get_args(member)[0] if get_origin(member) is Annotated else member for member in _members(annotation)]
    return [member for member in bare if isinstance(member, type) and issubclass(member, Section)]


def _section(annotation: Any) -> type[Section] | None:
    return next(iter(sections(annotation)), None)


def _below(annotation: Any, section: type[Section] | None, step: str | int) -> Any:
    """What stands at ``step`` of a section, a mapping or a list; Any where nothing is known of it."""
    if section is not None:
        field = section.model_fields.get(str(step))
        return field.annotation if field is not None else Any
    for member in _members(annotation):
        if get_origin(member) is dict:
            return get_args(member)[1]
        if get_origin(member) is list:
            return get_args(member)[0]
    return Any
