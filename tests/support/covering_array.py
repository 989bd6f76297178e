"""Every pair of ways to train: a covering array over the fields of a spec and what a model can be like.

``python tests/support/covering_array.py`` prints what works together; with ``--write`` it goes into the docs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import combinations, product
from pathlib import Path
from typing import Any

from epochal.catalog.index import check, entries
from epochal.errors import Problem, SpecError
from epochal.spec.job import JobSpec
from epochal.spec.load import load_text

PAGE = Path(__file__).parents[2] / "platform" / "docs" / "what-works-together.md"

STEPS = 6
"""The training of a case: an epoch of four steps, the last of a sample or two, and half of another."""

Axes = Mapping[str, tuple[str, ...]]
Case = Mapping[str, str]
Item = tuple[str, str]
Pair = tuple[Item, Item]

MODELS = (
    "plain", "batch norm", "dropout", "unused parameter", "tied weights", "frozen part", "branches", "bank", "phases",
)  # fmt: skip

AXES: Axes = {
    "strategy": ("one worker", "ddp", "fsdp"),
    "optimizer": tuple(entry.name for entry in entries("optimizer")),
    "model": MODELS,
    "data": ("set", "stream"),
    "precision": ("fp32", "bf16", "fp16"),
    "accumulation": ("no", "yes"),
    "clipping": ("no", "clip_grad_norm"),
    "parameter groups": ("no", "groups"),
    "average": ("no", "ema"),
    "loader_workers": ("0", "1"),
    "compile": ("no", "yes"),
    "resumed": ("in mid-epoch", "between epochs"),
}
"""The cheapest value of each stands first: of equals, the array takes it."""

QUICK: Axes = {**AXES, "optimizer": ("adamw", "sgd"), "model": (*MODELS[:6], "phases"), "compile": ("no",)}
"""What the suite without its slow tests covers; branches and banks have quick tests of their own there."""

_TRAIN_OF: dict[str, dict[str, Any]] = {
    "frozen part": {"freeze": ["0.*"]},
    "branches": {"find_unused_parameters": True},
    "bank": {"varying_buffers": ["bank"]},
}
"""What the spec says of a model."""

_STREAM = {"name": "webdataset", "params": {"path": "train.tar", "classes": 3}}
_PHASES = {"model": {"name": "dcgan"}, "task": {"name": "adversarial"}}

_FIELDS: dict[str, Callable[[str], dict[str, Any]]] = {
    "strategy": lambda value: (
        {"resources": {"workers": 1}} if value == "one worker" else {"resources": {"workers": 2, "strategy": value}}
    ),
    "optimizer": lambda value: {"train": {"optimizer": {"name": value, "lr": 0.01}}},
    "model": lambda value: {
        **({"train": _TRAIN_OF[value]} if value in _TRAIN_OF else {}),
        **(_PHASES if value == "phases" else {}),
    },
    "data": lambda value: {"data": _STREAM} if value == "stream" else {},
    "precision": lambda value: {
        "train": {"precision": value},
        # What fp16 asks for. The tests compute it on CPU, as torch does too.
        "resources": {"gpus_per_worker": 1} if value == "fp16" else {},
    },
    "accumulation": lambda value: {"train": {"micro_batch_size": 2}} if value == "yes" else {},
    "clipping": lambda value: {"train": {value: 0.5}} if value != "no" else {},
    "parameter groups": lambda value: {},
    "average": lambda value: {"train": {"average": {"kind": value, "decay": 0.5}}} if value == "ema" else {},
    "loader_workers": lambda value: {"data": {"loader_workers": int(value)}},
    "compile": lambda value: {"train": {"compile": value == "yes"}},
    "resumed": lambda value: {"checkpoint": {"every": "3steps" if value == "in mid-epoch" else "4steps"}},
}


def document(case: Case) -> dict[str, Any]:
    """The job spec of a case, with defaults for the axes that it leaves out."""
    tree: dict[str, Any] = {
        "version": 1,
        "name": "case",
        "model": {"name": "mlp"},
        "data": {"name": "synthetic"},
        "train": {"steps": STEPS, "global_batch_size": 8, "validate_every": "100steps"},
        "checkpoint": {"every": "4steps", "keep": {"latest": 9}},
    }
    for axis, value in case.items():
        for section, fields in _FIELDS[axis](value).items():
            tree[section] = {**tree.get(section, {}), **fields}
    if case.get("parameter groups") == "groups":
        groups = [{"parameters": ["*bias"], "lr": 0.005}]
        tree["train"]["optimizer"] = {**tree["train"].get("optimizer", {}), "groups": groups}
    if case.get("model") == "batch norm" and case.get("accumulation") == "yes":
        tree["train"]["batch_norm"] = "local"  # as it has to be
    return tree


def spec_of(case: Case) -> JobSpec:
    """The spec as `epochal validate` reads it.

    Raises:
        SpecError: it is refused.
    """
    return load_text(json.dumps(document(case)), Path("/case.yaml"), checks=[check]).spec


def pairs(axes: Axes = AXES) -> Iterator[Pair]:
    """Every two values of different axes."""
    for one, other in combinations(axes, 2):
        yield from product(((one, value) for value in axes[one]), ((other, value) for value in axes[other]))


@cache
def refused() -> dict[Pair, Problem]:
    """The pairs that a spec is refused for, everything else being as it is by default."""
    found = {}
    for pair in pairs():
        try:
            spec_of(dict(pair))
        except SpecError as error:
            found[pair] = error.problems[0]
    return found


def array(axes: Axes = AXES) -> list[Case]:
    """Cases that hold every pair that is not refused: greedy, and the same each time.

    A case begins with the first pair that is missing; each further axis gets the value that adds the most pairs.
    """
    missing = dict.fromkeys(pair for pair in pairs(axes) if pair not in refused())
    cases = []
    while missing:
        case = dict(next(iter(missing)))
        for axis, values in axes.items():
            if axis not in case:
                allowed = [value for value in values if not _adds(axis, value, case) & refused().keys()]
                case[axis] = max(allowed, key=lambda value: len(_adds(axis, value, case) & missing.keys()))
        cases.append({axis: case[axis] for axis in axes})
        for pair in combinations(cases[-1].items(), 2):
            missing.pop(pair, None)
    return cases


def _adds(axis: str, value: str, case: Case) -> set[Pair]:
    """The pairs that ``value`` makes with what the case has already, each in the order of the axes."""
    order = list(AXES)
    return {
        ((axis, value), item) if order.index(axis) < order.index(item[0]) else (item, (axis, value))
        for item in case.items()
    }


def table() -> str:
    """What is tested together and what is refused, as Markdown."""
    count = len(list(pairs()))
    lines = ["| | |", "|---|---|", *(f"| {axis} | {', '.join(values)} |" for axis, values in AXES.items())]
    lines += [
        "",
        f"{count} pairs, {count - len(refused())} of which train and resume, in {len(array())} trainings. Refused:",
        "",
        "| | | `epochal validate` says |",
        "|---|---|---|",
    ]
    for ((_, one), (_, other)), problem in refused().items():
        lines.append(f"| {one} | {other} | `{problem.path}`: {problem.message} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The page of the docs with its table as it is now."""
    before, _, _ = PAGE.read_text(encoding="utf-8").partition("| | |\n")
    return before + table()


if __name__ == "__main__":
    print(table())
    if "--write" in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
