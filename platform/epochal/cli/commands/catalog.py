"""The commands that list what a spec can name: `epochal models`, `optimizers`, `searchers` and the like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import click

from epochal.cli import render
from epochal.cli.options import output_option
from epochal.cli.render import Output

if TYPE_CHECKING:
    from epochal.catalog.index import IndexEntry, Kind
    from epochal.registry import Registry
    from epochal.spec.section import Choice
    from epochal.sweeps.entries import Entry

_PLACES: dict[str, tuple[str, ...]] = {
    "architecture": ("model",),
    "dataset": ("data",),
    "task": ("task",),
    "optimizer": ("train", "optimizer"),
    "lr_schedule": ("train", "lr_schedule"),
    "searcher": ("sweep", "search"),
    "trial_scheduler": ("sweep", "trial_scheduler"),
}
"""Where a job spec names an entry of each kind."""

_NESTED = ("architecture", "dataset", "task")
"""Kinds whose parameters stand under ``params``; those of the others stand beside the name."""

_TABLES = {
    "searcher": "epochal.sweeps.searchers:SEARCHERS",
    "trial_scheduler": "epochal.sweeps.trial_schedulers:TRIAL_SCHEDULERS",
}
"""Kinds whose entries are light and are imported; those of the others are in the catalog's index."""


def _catalog_command(name: str, kind: str, summary: str) -> click.Command:
    """A command that lists the entries of one kind, or describes one."""

    @click.command(name, help=f"{summary}\n\nWithout a NAME, lists them; with one, describes its parameters.")
    @click.argument("entry_name", metavar="[NAME]", required=False)
    @output_option()
    def command(entry_name: str | None, output: Output) -> None:
        if entry_name is None:
            beside = {"architecture": ["parameters"], "dataset": ["task"], "loss": ["task"]}.get(kind, [])
            render.records([_row(one) for one in _entries(kind)], ["name", *beside, "summary"], output, title=name)
        else:
            _describe(_entry(kind, entry_name), output)

    return command


models = _catalog_command("models", "architecture", "The architectures that a job spec's `model` can name.")
datasets = _catalog_command("datasets", "dataset", "The datasets that a job spec's `data` can name.")
tasks = _catalog_command("tasks", "task", "The tasks that a job spec's `task` can name.")
losses = _catalog_command("losses", "loss", "The losses that a task's `loss` can name.")
optimizers = _catalog_command("optimizers", "optimizer", "The optimizers that a job spec's `train.optimizer` can name.")
schedules = _catalog_command(
    "schedules", "lr_schedule", "The learning rate schedules that a job spec's `train.lr_schedule` can name."
)
searchers = _catalog_command("searchers", "searcher", "The searchers that `sweep.search` of a job spec can name.")
trial_schedulers = _catalog_command(
    "trial-schedulers", "trial_scheduler", "The trial schedulers that `sweep.trial_scheduler` of a job spec can name."
)


def _entries(kind: str) -> list[IndexEntry]:
    from epochal.catalog import index
    from epochal.catalog.providers import PROVIDERS
    from epochal.registry import resolve

    if kind == "architecture":
        return [*index.entries("architecture"), *map(_provided, PROVIDERS)]
    if kind not in _TABLES:
        return list(index.entries(cast("Kind", kind)))
    table = cast("Registry[Entry[Any]]", resolve(_TABLES[kind]))
    return [_entry(kind, name) for name in table]


def _entry(kind: str, name: str) -> IndexEntry:
    """
    Raises:
        NotFoundError: nothing of that kind has that name.
    """
    from epochal.catalog import index
    from epochal.catalog.providers import is_provided, provider
    from epochal.registry import resolve

    if kind == "architecture" and is_provided(name):
        provider(name)
        return _provided(name.partition("/")[0])
    if kind not in _TABLES:
        return index.entry(cast("Kind", kind), name)
    found = cast("Registry[Entry[Any]]", resolve(_TABLES[kind])).get(name)
    return index.IndexEntry(kind, name, found.summary, found.source, found.params.model_json_schema())


def _provided(library: str) -> IndexEntry:
    """A library's models as one entry: which there are, and their parameters, the library says."""
    from epochal.catalog.index import IndexEntry
    from epochal.catalog.providers import PROVIDERS

    found = PROVIDERS[library]
    summary = f"{found.summary}: pip install 'epochal[{library}]'"
    return IndexEntry("architecture", f"{library}/{found.what}", summary, found.source)


def _row(entry: IndexEntry) -> dict[str, Any]:
    row: dict[str, Any] = {"name": entry.name, "summary": entry.summary, "source": entry.source}
    if entry.kind == "architecture":
        row["parameters"] = entry.parameter_count
    if entry.kind == "loss":
        row["task"] = _task_of(entry)
    if entry.kind == "dataset":
        row["task"] = entry.task or "classification or regression"
    if entry.needs:
        row["needs"] = ", ".join(entry.needs)
    return row


def _task_of(loss: IndexEntry) -> str:
    return "classification" if loss.target == "class" else "regression"


def _describe(entry: IndexEntry, output: Output) -> None:
    params = list(_described(_properties(entry), entry.params.get("required", ()), entry.params.get("$defs", {})))
    if output is not Output.TABLE:
        render.document({**_row(entry), "params": params, "schema": entry.params, "example": _example(entry)}, output)
        return
    row = _row(entry)
    if entry.parameter_count is not None:
        row["parameters"] = f"{entry.parameter_count:,} with the defaults below, on the data of its tests"
    render.document(row)
    render.text("")
    if params:
        render.records(params, ["parameter", "type", "default", "description"])
        render.text("")
    render.text(_example(entry))


def _described(
    properties: Mapping[str, Any], required: Sequence[str], sections: Mapping[str, Any], place: str = ""
) -> Iterator[dict[str, Any]]:
    """A row for each parameter, and below one that is a section of its own for each of that."""
    for name, schema in properties.items():
        default = "required" if name in required else schema.get("default")
        references = [one["$ref"].rpartition("/")[2] for one in (schema, *schema.get("anyOf", ())) if "$ref" in one]
        found = (sections[one] for one in references if sections[one].get("additionalProperties") is False)
        section = next(found, dict[str, Any]())
        kind = "mapping, as follows" if section else type_of(schema)
        told = {"type": kind, "default": "null" if default is None else default}
        yield {"parameter": f"{place}{name}", **told, "description": schema.get("description", "")}
        yield from _described(section.get("properties", {}), section.get("required", ()), sections, f"{place}{name}.")


def _properties(entry: IndexEntry) -> dict[str, dict[str, Any]]:
    """The schema of each field beside the entry's name: those of the spec's own section, then the entry's."""
    from epochal.catalog.index import SECTIONS
    from epochal.spec.sweep import Search, TrialScheduler

    sections: dict[str, type[Choice]] = {str(kind): section for kind, section in SECTIONS.items()}
    sections |= {"searcher": Search, "trial_scheduler": TrialScheduler}
    section = sections.get(entry.kind)
    own = section.model_json_schema()["properties"] if section else {}
    for field, default in section.model_validate({}).model_dump(mode="json").items() if section else ():
        own[field]["default"] = default
    own.pop("name", None)
    if (entry.kind, entry.name) == ("trial_scheduler", "none"):
        own.pop("min")  # there are no rungs
    return {**own, **entry.params.get("properties", {})}


def type_of(schema: dict[str, Any]) -> str:
    """A parameter's type and bounds in words: ``whole number >= 1``, ``list of numbers``, ``relu | gelu``."""
    if "anyOf" in schema:
        return " or ".join(type_of(one) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " | ".join(str(value) for value in schema.get("enum", [schema.get("const")]))
    if "prefixItems" in schema:
        return f"[{', '.join(type_of(one) for one in schema['prefixItems'])}]"
    if schema.get("type") == "array":
        items = type_of(schema["items"]) if schema.get("items") else "values"
        return f"list of {items.replace('number', 'numbers', 1)}"
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true | false"}
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = " and ".join(f"{sign} {schema[key]:.15g}" for key, sign in signs.items() if key in schema)
    kind = words.get(schema.get("type", ""), schema.get("type") or "mapping with a name")
    return f"{kind} {bounds}" if bounds else kind


def _example(entry: IndexEntry) -> str:
    """How a job spec names it, with every parameter at its default."""
    import yaml

    required = entry.params.get("required", ())
    params = {
        name: next(iter(schema.get("enum", ["..."]))) if name in required else schema.get("default")
        for name, schema in _properties(entry).items()
    }
    nested = {"params": params} if entry.kind in _NESTED and params else params
    node: Any = {"name": entry.name, **nested}
    if entry.kind == "loss":  # its place is inside a task, which needs a name
        node = {"task": {"name": _task_of(entry), "params": {"loss": node}}}
    for step in reversed(_PLACES.get(entry.kind, ())):
        node = {step: node}
    if entry.stream:  # which has no epochs, and the defaults are in epochs
        node |= {"train": {"steps": 1000, "validate_every": "100steps"}, "checkpoint": {"every": "100steps"}}
    return str(yaml.safe_dump(node, sort_keys=False, default_flow_style=None, width=100)).rstrip()
