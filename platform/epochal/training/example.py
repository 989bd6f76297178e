"""What packaging a trained model needs of its data: two samples of its input, and what they are."""

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

FILE = Path("model") / "example.safetensors"


def keep(data: LoadedData, job: Path) -> None:
    """Write it beside the weights, in the job's folder."""
    fields = data.info.fields.items()
    described = {name: [list(field.shape), str(field.dtype), field.classes] for name, field in fields}
    # Two, though it be the same one twice: an export of a single sample would take single samples only.
    samples = data.train.fetch([0, len(data.train) - 1])["input"].contiguous()
    write_atomically(job / FILE, save({"input": samples}, {"info": json.dumps(described)}))


def read(job: Path) -> tuple[Tensor, DataInfo]:
    """Two samples of the input, (2, ...), and what the model is built for.

    Raises:
        CheckpointError: they were not kept, or are damaged.
    """
    try:
        with safe_open(job / FILE, "pt") as file:
            described = json.loads(file.metadata()["info"])
            return file.get_tensor("input"), DataInfo(_field(*described["input"]), _field(*described["target"]))
    except Exception as error:  # safetensors raises a kind of its own
        raise CheckpointError(f"{job / FILE} cannot be read: {said(error)}") from error


def _field(shape: list[int], dtype: str, classes: int | None) -> Field:
    kind: Any = getattr(torch, dtype.removeprefix("torch."))
    return Field(tuple(shape), kind, classes)
