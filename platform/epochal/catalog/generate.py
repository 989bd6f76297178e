"""Write ``index.json`` from the entries: ``python -m epochal.catalog.generate`` (``make index``).

With ``--check`` it only says whether that file is current.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from pydantic.json_schema import GenerateJsonSchema

from epochal.catalog.architectures import ARCHITECTURES
from epochal.catalog.datasets import DATASETS
from epochal.catalog.entry import Architecture, Dataset, Entry, LossEntry, OptimizerEntry, TaskEntry
from epochal.catalog.index import FILE, KINDS
from epochal.catalog.losses import LOSSES
from epochal.catalog.optimizers import OPTIMIZERS
from epochal.catalog.schedules import LR_SCHEDULES
from epochal.catalog.tasks import TASKS
from epochal.registry import Registry

REGISTRIES: dict[str, Registry[Any]] = {
    registry.kind: registry for registry in (ARCHITECTURES, DATASETS, TASKS, OPTIMIZERS, LR_SCHEDULES, LOSSES)
}


class _Untitled(GenerateJsonSchema):
    """Without the titles that pydantic makes up from the fields' names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def describe(entry: Entry[Any]) -> dict[str, Any]:
    """One entry as the index holds it."""
    described: dict[str, Any] = {
        "summary": entry.summary,
        "source": entry.source,
        "params": entry.params.model_json_schema(schema_generator=_Untitled),
    }
    if isinstance(entry, Architecture):
        described["parameter_count"] = parameter_count(entry)
    if isinstance(entry, Dataset):
        described["task"] = entry.task
        if entry.stream:
            described["stream"] = True
    if isinstance(entry, TaskEntry) and entry.phases:
        described["phases"] = True
    if isinstance(entry, LossEntry):
        described["target"] = entry.target_kind
    if isinstance(entry, OptimizerEntry) and entry.needs:
        described["needs"] = entry.needs
    return described


def parameter_count(entry: Architecture) -> int:
    """Of the model with default parameters for the entry's example data; nothing is allocated."""
    with torch.device("meta"):
        model = entry.build(entry.params(), entry.example)
    return sum(parameter.numel() for parameter in model.parameters())


def index() -> str:
    """The content of ``index.json``: what this distribution holds, without the plugins of others."""
    content = {kind: {name: describe(entry) for name, entry in REGISTRIES[kind].built_in()} for kind in KINDS}
    return json.dumps(content, indent=1) + "\n"


def main(arguments: list[str]) -> None:
    """Write the index, or with ``--check`` end with an error where it is not current."""
    if arguments != ["--check"]:
        FILE.write_text(index(), encoding="utf-8")
    elif FILE.read_text(encoding="utf-8") != index():
        raise SystemExit(f"{FILE.name} is not current: make index")


if __name__ == "__main__":
    main(sys.argv[1:])
