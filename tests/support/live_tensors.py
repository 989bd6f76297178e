"""Which tensors are alive: every storage that any operation made, C++'s own included, counted until it is freed."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_LATE_SECONDS = 0.05
"""gloo's thread lets go of what it has sent a moment after whoever waited for it has gone on."""


class LiveTensors(TorchDispatchMode):
    """Within the ``with`` block, notes what operations return; forward and backward passes alike."""

    def __init__(self) -> None:
        super().__init__()
        self._storages: dict[int, StorageWeakRef] = {}
        self.peak = 0
        """The most bytes alive after any operation."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves((result, args)):
            if isinstance(leaf, torch.Tensor) and leaf.device.type != "meta":
                storage = leaf.untyped_storage()
                self._storages[storage._cdata] = StorageWeakRef(storage)
        if sum(self.sizes()) > self.peak:
            time.sleep(_LATE_SECONDS)
            self.peak = max(self.peak, sum(self.sizes()))
        return result

    def sizes(self) -> list[int]:
        """The bytes of each storage that is alive; FSDP keeps storages of no bytes for parameters it has freed."""
        found = []
        for key, storage in list(self._storages.items()):
            pointer = torch.UntypedStorage._new_with_weak_ptr(storage.cdata)
            if pointer is None:
                del self._storages[key]
            else:
                found.append(pointer.nbytes())
        return found
