"""The one stopwatch of every contender: notes the time of each optimizer step of any process that trains.

A folder with this file is put on ``PYTHONPATH``, so Python imports it at start-up in every process, Epochal's workers
and the peers' alike. It does nothing until torch's optimizers are imported, and then adds torch's own hook after
``Optimizer.step``. Each process appends to ``$BENCHMARK_STEPS/<pid>``: its rank, then one line a step with the
optimizer's own count of steps (which a checkpoint restores) and the time in Unix seconds.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_WATCHED = "torch.optim.optimizer"


class _AfterOptimizers:
    """A finder that lets the real one find ``torch.optim.optimizer`` and adds the hook once it is loaded."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != _WATCHED:
            return None
        sys.meta_path.remove(self)  # type: ignore[arg-type]
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_watch(module: ModuleType) -> None:
                load(module)
                module.register_optimizer_step_post_hook(_Recorder())

            spec.loader.exec_module = load_and_watch  # type: ignore[method-assign]
        return spec


class _Recorder:
    def __init__(self) -> None:
        self._file = -1

    def __call__(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        now = time.time()
        if self._file < 0:
            self._file = _open()
        step = next(iter(optimizer.state.values()))["step"]
        os.write(self._file, f"{int(step)} {now!r}\n".encode())


def _open() -> int:
    import torch.distributed

    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    path = os.path.join(os.environ["BENCHMARK_STEPS"], str(os.getpid()))
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"rank {rank}\n".encode())
    return file


if "BENCHMARK_STEPS" in os.environ:
    sys.meta_path.insert(0, _AfterOptimizers())
