"""Which variables of a job's ``env`` have no effect any more once a process has started and imported torch."""

from __future__ import annotations

_BEGINNINGS = (
    # torch, what it computes with, and what it compiles with
    "TORCH", "PYTORCH_", "ATEN_", "TRITON_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "DNNL_", "ONEDNN_",
    # the process itself: its loader, its memory, its interpreter
    "LD_", "MALLOC_", "GLIBC_TUNABLES", "PYTHON",
)  # fmt: skip


def is_read_at_start(name: str) -> bool:
    """Whether a worker has to be started with that variable, because an idle one that has torch would not heed it.

    Not ``PYTHONPATH``: it is how a node finds Epochal itself, and a job's own code comes with ``code.dir``.

    >>> is_read_at_start("TORCH_LOGS"), is_read_at_start("NCCL_DEBUG")
    (True, False)
    """
    return name.startswith(_BEGINNINGS) and name != "PYTHONPATH"
