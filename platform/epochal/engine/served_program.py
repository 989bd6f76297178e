"""A traced model that is called with several fields, or gives several, by their names.

MLflow's torch flavour knows models of one tensor to one tensor. This file is shipped within such a package and loads
it, so it imports nothing of Epochal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.utils._pytree import tree_map_only


def export_program(module: nn.Module, samples: Mapping[str, Tensor], file: Path) -> Any:
    """Trace ``module``, called with the ``samples`` (batch, ...) in their order, for any batch; saved to ``file``.

    A named tuple that it gives is a mapping afterwards: no reader would have its class. Returns what it gives for the
    ``samples``, as arrays. Raises what ``torch.export`` does where it cannot trace it.
    """
    arguments = tuple(samples.values())
    any_batch = tuple({0: Dim.DYNAMIC} for _ in arguments)
    program = torch.export.export(_ByName(module).eval(), arguments, dynamic_shapes=(any_batch,))
    torch.export.save(program, file, extra_files={"inputs": json.dumps(list(samples))})
    return ServedProgram(program, tuple(samples)).predict({name: one.numpy() for name, one in samples.items()})


class _ByName(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *fields: Tensor) -> Any:
        outputs = self.module(*fields)
        return outputs._asdict() if hasattr(outputs, "_asdict") else outputs


class ServedProgram:
    """``names`` are the fields that the model is called with, in its order."""

    def __init__(self, program: torch.export.ExportedProgram, names: tuple[str, ...]) -> None:
        self._module = program.module()
        self._names = names

    def predict(self, inputs: Mapping[str, Any], params: object = None) -> Any:
        """``inputs`` are arrays (batch, ...) by name. MLflow gives ``params``, of which this has none."""
        with torch.no_grad():
            outputs = self._module(*(torch.from_numpy(np.asarray(inputs[name])) for name in self._names))
        return tree_map_only(Tensor, Tensor.numpy, outputs)


def _load_pyfunc(path: str) -> ServedProgram:
    """What MLflow calls."""
    told: dict[str, Any] = {"inputs": ""}
    program = torch.export.load(path, extra_files=told)
    return ServedProgram(program, tuple(json.loads(told["inputs"])))
