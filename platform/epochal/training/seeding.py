"""Random numbers: where they start, and their state for checkpoints."""

from __future__ import annotations

import base64
import hashlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch

State = dict[str, Any]
"""The state of this process's generators as plain JSON values."""


def derive(seed: int, *parts: int | str) -> int:
    """A seed below 2**63 for one purpose, unrelated to those of other ``parts``.

    >>> derive(0, "order", 1) == derive(0, "order", 2)
    False
    """
    text = "/".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def start(seed: int) -> None:
    """Seed every generator a model or a dataset may draw from."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # it takes no more bits
    random.seed(seed)


class Held(NamedTuple):
    """The state of this process's generators as their libraries have it: cheap to take, and to put back."""

    torch: torch.Tensor
    python: Any
    numpy: Any
    cuda: torch.Tensor | None


def hold(device: torch.device) -> Held:
    """The state of all generators of this process."""
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return Held(torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=True), cuda)


def put_back(held: Held, device: torch.device) -> None:
    """Go on from a state that was held."""
    torch.set_rng_state(held.torch)
    random.setstate(held.python)
    np.random.set_state(held.numpy)
    if device.type == "cuda" and held.cuda is not None:
        torch.cuda.set_rng_state(held.cuda, device)


def capture(device: torch.device) -> State:
    """The state of all generators of this process, for a checkpoint."""
    held = hold(device)
    version, words, gauss = held.python
    kind, keys, position, has_gauss, cached = held.numpy
    state: State = {
        "torch": _pack(held.torch),
        "python": [version, list(words), gauss],
        "numpy": [kind, [int(key) for key in keys], position, has_gauss, cached],
    }
    if held.cuda is not None:
        state["cuda"] = _pack(held.cuda)
    return state


def restore(state: State, device: torch.device) -> None:
    """Go on from a captured state."""
    version, words, gauss = state["python"]
    kind, keys, position, has_gauss, cached = state["numpy"]
    numpy = (kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached)
    cuda = _unpack(state["cuda"]) if "cuda" in state else None
    put_back(Held(_unpack(state["torch"]), (version, tuple(words), gauss), numpy, cuda), device)


def _pack(state: torch.Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _unpack(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Refuse operations whose result may differ between two runs, where ``wanted``; as it was before afterwards."""
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    benchmark = torch.backends.cudnn.benchmark
    # cuBLAS is deterministic with a fixed workspace only, and reads this when its first handle is made.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.benchmark = benchmark
