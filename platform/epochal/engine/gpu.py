"""Whether a worker computes on the GPU that Ray has given to it.

Ray says which one by ``CUDA_VISIBLE_DEVICES``, and CUDA reads that once: where anything in the process has asked it for
its devices before, the worker gets the first GPU of the node, as all others do, and nothing says so.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch

from epochal.errors import DeviceError
from epochal.redaction import said


def check(assigned: Sequence[str]) -> None:
    """Compare the GPU that torch computes on with the one ``assigned``, Ray's ids: numbers of NVML, or UUIDs.

    Parts of a GPU (MIG) are not compared: CUDA and NVML name them differently.

    Raises:
        DeviceError: torch sees none, or another.
    """
    try:
        used = str(torch.cuda.get_device_properties(0).uuid)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(
            f"a GPU is reserved for this worker, and torch sees none: {said(error)}",
            "`epochal doctor` on the node shows its driver and its GPUs",
        ) from error
    expected = expected_uuid(assigned, _uuids())
    if not expected:
        text = f"computing on GPU {_bare(used)}; whether that is {assigned}, as Ray says, is not known\n"
        os.write(2, text.encode())
    elif not _bare(used).startswith(_bare(expected)):
        raise DeviceError(
            f"this worker computes on GPU {_bare(used)}, and Ray has given it {_bare(expected)}",
            "what every process runs before the training (a plugin, sitecustomize) must not ask CUDA for its devices",
        )


def expected_uuid(assigned: Sequence[str], uuids: Sequence[str]) -> str:
    """The UUID of the first GPU ``assigned``, or the beginning of it; empty where nobody knows.

    ``uuids`` are the node's, by NVML's number, an empty one for a GPU that is divided.

    >>> expected_uuid(["1"], ["GPU-aaaa", "GPU-bbbb"])
    'GPU-bbbb'
    """
    first = assigned[0] if assigned else ""
    if first.isdigit():
        return uuids[int(first)] if int(first) < len(uuids) else ""
    return first if first.startswith("GPU-") else ""


def _bare(uuid: str) -> str:
    return uuid.removeprefix("GPU-").lower()


def _uuids() -> list[str]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return ["" if _is_divided(handle) else str(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def _is_divided(handle: Any) -> bool:
    import pynvml

    try:
        return bool(pynvml.nvmlDeviceGetMigMode(handle)[0] == pynvml.NVML_DEVICE_MIG_ENABLE)
    except pynvml.NVMLError_NotSupported:
        return False
