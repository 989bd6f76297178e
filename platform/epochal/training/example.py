"""What packaging a trained model needs of its data: two samples of what it is called with, and what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from epochal.catalog.data import DataInfo, Field, LoadedData
from epochal.errors import CheckpointError
from epochal.files import write_atomically
from epochal.redaction import said
from epochal.spec.job import JobSpec
from epochal.training.fetching import some_of

FILE = Path("model") / "example.safetensors"


def keep(data: LoadedData, spec: JobSpec, job: Path) -> None:
    """Write it beside the weights, in the job's folder."""
    fields = data.info.fields.items()
    described = {name: [list(field.shape), str(field.dtype), field.classes] for name, field in fields}
    # Two, though it be the same one twice: an export of a single sample would take single samples only.
    samples = some_of(data.train, [0, len(data.train) - 1], data, spec)
    kept = {name: samples[name].contiguous() for name in data.info.inputs}
    told = {"info": json.dumps(described), "inputs": json.dumps(data.info.inputs)}
    write_atomically(job / FILE, save(kept, told))


def read(job: Path) -> tuple[dict[str, Tensor], DataInfo]:
    """Two samples of each field that the model is called with, (2, ...), in its order, and what it is built for.

    Raises:
        CheckpointError: they were not kept, or are damaged.
    """
    try:
        with safe_open(job / FILE, "pt") as file:
            told = file.metadata()
            fields = {name: _field(*described) for name, described in json.loads(told["info"]).items()}
            inputs = tuple(json.loads(told.get("inputs", '["input"]')))  # those kept by an older version have one
            info = DataInfo(fields.pop("input"), fields.pop("target"), fields, inputs)
            return {name: file.get_tensor(name) for name in inputs}, info
    except Exception as error:  # safetensors raises a kind of its own
        raise CheckpointError(f"{job / FILE} cannot be read: {said(error)}") from error


def _field(shape: list[int], dtype: str, classes: int | None) -> Field:
    kind: Any = getattr(torch, dtype.removeprefix("torch."))
    return Field(tuple(shape), kind, classes)
