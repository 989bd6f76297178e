"""What the catalog holds, read from ``index.json``: no torch, no entry is imported.

``make index`` writes the file from the entries themselves, and a test holds it current.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ValidationError

from epochal.catalog.providers import is_provided, provider
from epochal.catalog.schema_model import model_of
from epochal.errors import NotFoundError, Problem, did_you_mean
from epochal.spec.corners import Point, corners, in_order, problems_at
from epochal.spec.job import Checkpoint, LrSchedule, Optimizer, Train
from epochal.spec.no_epochs import no_epochs
from epochal.spec.params import problems_of
from epochal.spec.section import is_import_path
from epochal.spec.space import Entry
from epochal.spec.sweep import Sweep
from epochal.spec.tree import placed
from epochal.spec.wanted_metrics import WAITING, Given, unmet
from epochal.units import Interval

Kind = Literal["architecture", "dataset", "task", "optimizer", "lr_schedule", "loss"]
KINDS: tuple[Kind, ...] = get_args(Kind)

FILE = Path(__file__).with_name("index.json")
_IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
SECTIONS: dict[Kind, type[Optimizer | LrSchedule]] = {"optimizer": Optimizer, "lr_schedule": LrSchedule}
"""Sections of the spec with fields of their own beside the entry's parameters: the learning rate, the warm-up."""
_OWN_CODE: tuple[Kind, ...] = ("architecture", "dataset", "task")


@dataclass(frozen=True)
class IndexEntry:
    """One thing that a spec can name.

    ``params`` is the JSON Schema of its parameters; ``parameter_count`` is an architecture's with its defaults on its
    example data; ``task`` is what a dataset is for (None: as its target is); ``target`` is what a loss compares with;
    ``stream`` is whether a dataset has no epochs, ``phases`` whether a step of a task has several;
    ``needs`` is what an optimizer cannot do without. ``kind`` is one of ``KINDS``, or of what is not in the index.
    """

    kind: str
    name: str
    summary: str
    source: str
    params: dict[str, Any] = field(default_factory=dict)
    parameter_count: int | None = None
    task: str | None = None
    target: str | None = None
    needs: Sequence[str] = ()
    stream: bool = False
    phases: bool = False


@cache
def _index() -> dict[str, dict[str, IndexEntry]]:
    content = json.loads(FILE.read_text(encoding="utf-8"))
    return {
        kind: {name: IndexEntry(kind=kind, name=name, **content[kind][name]) for name in sorted(content[kind])}
        for kind in KINDS
    }


def entries(kind: Kind) -> tuple[IndexEntry, ...]:
    """Everything of one kind, by name."""
    return tuple(_index()[kind].values())


def entry(kind: Kind, name: str) -> IndexEntry:
    """One entry.

    Raises:
        NotFoundError: nothing of that kind has that name.
    """
    found = _index()[kind].get(name)
    if found is None:
        raise NotFoundError(kind.replace("_", " "), name, tuple(_index()[kind]))
    return found


def check(tree: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the names and parameters of a job spec's tree of plain values.

    Only what the catalog knows is looked at: fields of a wrong type are left to the spec's own validation. Where a
    sweep moves a parameter or a name, it is looked at in the corners of the sweep's space.
    """

    def judge(point: Point) -> list[Problem]:
        spec = placed(tree, point)
        problems = [problem for named in _named(spec) for problem in _problems(named, spec.get("code") is not None)]
        rules = (
            _sharded_but_whole,
            _sharded_keras,
            _changes_gradients,
            _repeats_phases,
            _decays_nothing,
            _waits_in_vain,
            _counts_epochs,
        )
        return [*problems, *(problem for rule in rules for problem in rule(spec))]

    return problems_at(corners(*_swept(tree)), judge)


@dataclass(frozen=True)
class _Named:
    """A place in a spec that names an entry, its parameters and their path."""

    kind: Kind
    path: str
    name: str
    params: Mapping[str, Any]
    params_path: str


def _sharded_but_whole(tree: Mapping[str, Any]) -> Iterator[Problem]:
    """An optimizer that needs whole matrices beside a strategy that shards them."""
    known = _entry_at(tree, "optimizer", "train.optimizer.name")
    if known and "whole_matrices" in known.needs and _at(tree, "resources.strategy") == "fsdp":
        message = f"{known.name} needs whole matrices, and resources.strategy fsdp shards them"
        hint = f"use strategy: ddp, or an optimizer such as {Optimizer().name}"
        yield Problem("train.optimizer.name", message, value=known.name, hint=hint)


def _sharded_keras(tree: Mapping[str, Any]) -> Iterator[Problem]:
    """Keras keeps the weights of its layers itself, so that sharded ones in their place would not be what is used."""
    name = _at(tree, "model.name")
    if isinstance(name, str) and name.startswith("keras/") and _at(tree, "resources.strategy") == "fsdp":
        yield Problem("resources.strategy", "Keras models cannot be sharded", value="fsdp", hint="use ddp")


def _changes_gradients(tree: Mapping[str, Any]) -> Iterator[Problem]:
    """What an optimizer cannot have that compares the gradients of several passes over a batch."""
    known = _entry_at(tree, "optimizer", "train.optimizer.name")
    if known is None or "closure" not in known.needs:
        return
    said = {
        "precision": "fp16 scales them" if _at(tree, "train.precision") == "fp16" else "",
        "clip_grad_norm": "clip_grad_norm shortens them" if _at(tree, "train.clip_grad_norm") is not None else "",
        "optimizer.groups": "groups would take steps of several lengths" if _at(tree, "train.optimizer.groups") else "",
    }
    for name in filter(said.get, said):
        yield Problem(f"train.{name}", f"{known.name} compares the gradients of several passes, and {said[name]}")


def _repeats_phases(tree: Mapping[str, Any]) -> Iterator[Problem]:
    optimizer, task = _entry_at(tree, "optimizer", "train.optimizer.name"), _entry_at(tree, "task", "task.name")
    if optimizer and task and "closure" in optimizer.needs and task.phases:
        told = f"{optimizer.name} goes over a batch several times, and the phases of {task.name} over each"
        yield Problem("train.optimizer.name", told, value=optimizer.name, hint="use adam")


def _decays_nothing(tree: Mapping[str, Any]) -> Iterator[Problem]:
    """Where weight decay is to act, of an optimizer that has none."""
    optimizer = _at(tree, "train.optimizer")
    name = _at(optimizer, "name") or Optimizer().name
    known = _index()["optimizer"].get(name) if isinstance(name, str) else None
    if known is None or "weight_decay" in known.params.get("properties", {}):
        return
    groups = _at(optimizer, "groups")
    said = [f"groups.{place}.weight_decay" for place, group in enumerate(groups if isinstance(groups, list) else ())
            if _at(group, "weight_decay") is not None]  # fmt: skip
    for name in (*(("decay_on",) if _at(optimizer, "decay_on") == "matrices" else ()), *said):
        yield Problem(f"train.optimizer.{name}", f"{known.name} has no weight decay")


def _counts_epochs(tree: Mapping[str, Any]) -> Iterator[Problem]:
    """Lengths in epochs beside data that has none."""
    known = _entry_at(tree, "dataset", "data.name")
    if known is not None and known.stream:
        lengths = {"train.validate_every": Train.model_fields["validate_every"].default}
        lengths["checkpoint.every"] = Checkpoint.model_fields["every"].default
        for path in lengths:
            if isinstance(every := _at(tree, path), str):
                try:
                    lengths[path] = Interval.parse(every)
                except ValueError:  # which the spec's own validation tells
                    return
        yield from no_epochs(_at(tree, "train.epochs"), *lengths.values())


def _waits_in_vain(tree: Mapping[str, Any]) -> Iterator[Problem]:
    """A metric that is waited for and that no validation will give, as far as that is known without the data."""
    wanted = {path: metric for path in WAITING if isinstance(metric := _at(tree, f"{path}.metric"), str)}
    dataset = _entry_at(tree, "dataset", "data.name")
    task = _entry_at(tree, "task", "task.name")
    if task is None and dataset is not None and dataset.task is not None and _at(tree, "task.name") is None:
        task = _index()["task"][dataset.task]
    absent = "data.params.validation is 0" if dataset is not None and _holds_nothing_out(tree, dataset) else ""
    schema = task.params.get("properties", {}).get("metrics", {}) if task is not None else {}
    known: list[str] = next(
        (one["items"].get("enum", []) for one in (schema, *schema.get("anyOf", ())) if "items" in one), []
    )
    chosen = _at(tree, "task.params.metrics")
    names = chosen if isinstance(chosen, list) else schema.get("default") or known
    told = [name for name in names if isinstance(name, str)] if known else None
    yield from unmet(wanted, Given(told, known, absent))


def _holds_nothing_out(tree: Mapping[str, Any], dataset: IndexEntry) -> bool:
    """Whether there is no validation data for certain: some datasets may find it apart, in their files."""
    parameters = dataset.params.get("properties", {})
    apart = "path" in parameters and ("validation_path" not in parameters or _at(tree, "data.params.validation_path"))
    return _at(tree, "data.params.validation") == 0 and not apart


def _entry_at(tree: Mapping[str, Any], kind: Kind, path: str) -> IndexEntry | None:
    name = _at(tree, path)
    return _index()[kind].get(name) if isinstance(name, str) else None


def _named(tree: Mapping[str, Any]) -> Iterator[_Named]:
    yield from _component("architecture", "model", tree.get("model"))
    yield from _component("dataset", "data", tree.get("data"))
    yield from _component("task", "task", tree.get("task"))
    yield from _choice("loss", "task.params.loss", _at(tree, "task.params.loss"))
    yield from _choice("optimizer", "train.optimizer", _at(tree, "train.optimizer"))
    yield from _choice("lr_schedule", "train.lr_schedule", _at(tree, "train.lr_schedule"))


def _component(kind: Kind, path: str, node: Any) -> Iterator[_Named]:
    if isinstance(node, Mapping) and isinstance(node.get("name"), str):
        params = node.get("params", {})
        yield _Named(kind, path, node["name"], params if isinstance(params, Mapping) else {}, f"{path}.params")


def _choice(kind: Kind, path: str, node: Any) -> Iterator[_Named]:
    section = SECTIONS.get(kind)
    default = section().name if section else None
    if isinstance(node, Mapping) and isinstance(name := node.get("name", default), str):
        own = section.model_fields if section else ("name",)
        params = {key: value for key, value in node.items() if key not in own}
        yield _Named(kind, path, name, params, path)


def _problems(named: _Named, with_code: bool) -> list[Problem]:
    if named.kind == "architecture" and is_provided(named.name):
        return _provided_problems(named, with_code)
    if is_import_path(named.name) and named.kind in _OWN_CODE:
        return _own_code_problems(named, with_code)
    known = _index()[named.kind]
    if named.name in known:
        model = _model(named.kind, named.name)
        try:
            model.model_validate(dict(named.params))
        except ValidationError as error:
            beside = SECTIONS[named.kind].model_fields if named.kind in SECTIONS else ()
            return problems_of(error, model, named.params_path, beside)
        return []
    if named.name in _plugins(named.kind):
        return []
    words = named.kind.replace("_", " ")
    hint = did_you_mean(named.name, tuple(known))
    return [Problem(f"{named.path}.name", f"no {words} is named {named.name!r}", value=named.name, hint=hint)]


def _provided_problems(named: _Named, with_code: bool) -> list[Problem]:
    """Of a library's model; its parameters are checked where it is installed and the model is built."""
    try:
        provider(named.name)
    except NotFoundError as error:
        return [Problem(f"{named.path}.name", error.message, value=named.name, hint=error.hint)]
    library, _, model = named.name.partition("/")
    return _own_code_problems(replace(named, name=model), with_code) if library == "keras" else []


def _own_code_problems(named: _Named, with_code: bool) -> list[Problem]:
    if not _IMPORT_PATH.fullmatch(named.name):
        message = f"expected a name of the catalog or module:attribute, got {named.name!r}"
        return [Problem(f"{named.path}.name", message, value=named.name)]
    if with_code:
        return []
    hint = "add code: {dir: .} to ship your own code to the workers"
    return [
        Problem(f"{named.path}.name", "this is your own code, and the spec has no code", value=named.name, hint=hint)
    ]


@cache
def _model(kind: Kind, name: str) -> type[BaseModel]:
    return model_of(name, entry(kind, name).params)


@cache
def _plugins(kind: Kind) -> frozenset[str]:
    """Names that other distributions add; their parameters are checked where they are installed and built."""
    return frozenset(point.name for point in entry_points(group=f"epochal.{kind}"))


def _at(tree: Any, path: str) -> Any:
    for step in path.split("."):
        if not isinstance(tree, Mapping):
            return None
        tree = tree.get(step)
    return tree


_SWEPT = re.compile(r"(model|data|task)\.(name|params\..+)|train\.(optimizer|lr_schedule)(\.[^.]+)?")


def _swept(tree: Mapping[str, Any]) -> tuple[dict[str, Entry], list[dict[str, Any]]]:
    """What of a sweep's space and points the catalog knows of; nothing where they are wrong by themselves."""
    node = tree.get("sweep")
    try:
        sweep = Sweep.model_validate(
            {key: node[key] for key in ("space", "points") if key in node} if isinstance(node, Mapping) else {}
        )
    except ValidationError:
        return {}, []
    searched = sweep.searched
    wanted = {path for path in searched if _SWEPT.fullmatch(path)}
    for path in reversed(in_order(searched)):
        wanted |= searched[path].when.keys() if path in wanted else set()
    points = [{path: value for path, value in point.items() if _SWEPT.fullmatch(path)} for point in sweep.points]
    return {path: entry for path, entry in searched.items() if path in wanted}, points
