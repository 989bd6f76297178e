"""Every foreign error has a kind, and the strongest evidence names the culprit."""

from __future__ import annotations

import errno
import gc
import inspect
import pickle
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from traceback import StackSummary

import pytest
import ray.exceptions as rx
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException

from epochal.engine.failure import (
    CAUSES,
    RAY_KINDS,
    Evidence,
    Failed,
    FailureKind,
    _cause,
    first_failure,
    of_exception,
    of_ray,
)
from epochal.errors import (
    CheckpointError,
    CodeError,
    DeviceError,
    EpochalError,
    NonFiniteLossError,
    Problem,
    SpecError,
    UnreachableError,
    UsageError,
)


def test_the_map_is_complete() -> None:
    """An error that a newer Ray brings must be given a kind on purpose."""
    every = {error for _, error in inspect.getmembers(rx, inspect.isclass) if issubclass(error, rx.RayError)}
    assert every - {rx.RayError} == set(RAY_KINDS)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (rx.WorkerCrashedError(), FailureKind.INFRASTRUCTURE),
        (rx.NodeDiedError("gone"), FailureKind.INFRASTRUCTURE),
        (rx.OutOfMemoryError("killed"), FailureKind.OUT_OF_MEMORY),
        (rx.UserCodeException("Traceback\nModuleNotFoundError: No module named 'epochal'"), FailureKind.USER_ERROR),
    ],
)
def test_rays_errors(error: rx.RayError, kind: FailureKind) -> None:
    failed = of_ray(3, error)
    assert (failed.rank, failed.kind) == (3, kind)
    assert failed.message


LOADER = "DataLoader worker (pid 46794) is killed by signal: "
HINT = " This is typically caused by a remote worker crashing. Check the logs of the remote worker"
USER, MEMORY, INFRA = FailureKind.USER_ERROR, FailureKind.OUT_OF_MEMORY, FailureKind.INFRASTRUCTURE
OWN, BROKEN = Evidence.EXCEPTION, Evidence.BROKEN_COLLECTIVE

TEXTS = [
    (NonFiniteLossError(7, 1, float("nan")), FailureKind.NON_FINITE_LOSS, OWN),
    (DeviceError("this worker computes on GPU aaaa, and Ray has given it bbbb"), INFRA, OWN),
    (MemoryError(), MEMORY, OWN),
    (EpochalError("sample 7 cannot be read: _ArrayMemoryError: Unable to allocate 7.28 TiB for an array"), MEMORY, OWN),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity"), MEMORY, OWN),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
                  "to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"), MEMORY, OWN),
    (torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously "), MEMORY, OWN),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), MEMORY, OWN),
    (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), MEMORY, OWN),
    (RuntimeError(LOADER + "Killed. "), MEMORY, OWN),
    (RuntimeError(LOADER + "Bus error. It is possible that dataloader's workers are out of shared memory. Please try "
                  "to raise your shared memory limit."), MEMORY, OWN),
    (RuntimeError("unable to mmap 8388608 bytes from file </torch_28>: Cannot allocate memory (12)"), MEMORY, OWN),
    (RuntimeError("DataLoader worker (pid(s) 46794) exited unexpectedly"), INFRA, OWN),
    (RuntimeError(LOADER + "Segmentation fault. "), INFRA, OWN),
    (torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered\nCUDA kernel errors"), INFRA, OWN),
    (RuntimeError("CUDA error: uncorrectable NVLink error detected during the execution"), INFRA, OWN),
    (RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronously"), INFRA, OWN),
    (RuntimeError("CUDA error: the launch timed out and was terminated\nCUDA kernel errors might be"), INFRA, OWN),
    (RuntimeError("CUDA error: hardware stack error"), INFRA, OWN),
    (RuntimeError("CUDA error: Invalid access of peer GPU memory over nvlink or a hardware error"), INFRA, OWN),
    (RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"), INFRA, OWN),
    (RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable"), INFRA, OWN),
    (RuntimeError("CUDA error: system not yet initialized"), INFRA, OWN),
    (RuntimeError("CUDA error: unknown error"), INFRA, OWN),
    (RuntimeError("CUDA error: GPU has fallen off the bus"), INFRA, OWN),
    (dist.DistBackendError("NCCL error in: ../torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:1275, invalid usage "
                           "(run with NCCL_WARN for details), NCCL 2.18.5\nncclInvalidUsage: This usually reflects "
                           "invalid usage of NCCL.\nLast error:\nDuplicate GPU detected"), USER, OWN),
    (dist.DistBackendError("NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.hpp:268, remote process "
                           "exited or there was a network error, NCCL version 2.21.5\nncclRemoteError: A call failed "
                           "possibly due to a network error or a remote process exiting prematurely."), INFRA, BROKEN),
    (dist.DistStoreError("wait timeout after 3000ms, keys: /0//1//cpu//0/1"), INFRA, BROKEN),
    (dist.DistNetworkError("failed to recv, got 0 bytes"), INFRA, BROKEN),
    (RuntimeError("[/__w/pytorch/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer "
                  "[127.0.0.1]:28328." + HINT), INFRA, BROKEN),
    (RuntimeError("[/__w/pytorch/pytorch/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting "
                  "4000ms for recv operation to complete"), INFRA, BROKEN),
    (RuntimeError("Gloo connectFullMesh failed with [../third_party/gloo/gloo/transport/tcp/pair.cc:144] no error"),
     INFRA, BROKEN),
    (RuntimeError("Application timeout caused pair closure"), INFRA, BROKEN),
    (RuntimeError("NCCL communicator was aborted on rank 1. Original reason for failure was: [Rank 1] Watchdog caught "
                  "collective operation timeout: WorkNCCL(SeqNum=28098, OpType=ALLREDUCE)"), INFRA, BROKEN),
    (RuntimeError("NCCL Error 2: unhandled system error (run with NCCL_DEBUG=INFO for details)"), INFRA, BROKEN),
    (UnreachableError("the agent of the sweep has hung up: BrokenPipeError: [Errno 32] Broken pipe"), INFRA, OWN),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), MEMORY, OWN),
    (OSError(errno.ENOSPC, "No space left on device"), INFRA, OWN),
    (OSError(errno.EIO, "Input/output error"), INFRA, OWN),
]  # fmt: skip
"""What torch, CUDA, NCCL and gloo say, as seen here or in reports to their makers; each with its row's verdict."""


@pytest.mark.parametrize(
    ("error", "kind"),
    [(OSError(errno.ENOSPC, "No space left on device"), INFRA), (ValueError("shapes differ"), FailureKind.USER_ERROR)],
)
def test_a_worker_that_fails_beside_its_training(error: Exception, kind: FailureKind) -> None:
    failed = of_ray(2, rx.RayTaskError("work", f"Traceback ...\n{type(error).__name__}: {error}", error))
    assert (failed.rank, failed.kind) == (2, kind)


OF_THE_JOB = [
    ValueError("shapes differ"),
    SystemExit(1),
    KeyboardInterrupt(),
    FileNotFoundError(errno.ENOENT, "No such file"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
    RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    # A data base of the job's own that is away, or that its dataset cannot find: no worker and no collective is broken.
    ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
    ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    RuntimeError("the feature store says: Connection closed by peer"),
]


@pytest.mark.parametrize(("error", "kind", "evidence"), TEXTS, ids=lambda value: str(value)[:60])
def test_what_is_not_the_jobs_own_fault(error: BaseException, kind: FailureKind, evidence: Evidence) -> None:
    failed = of_exception(1, error, "trace")
    assert (failed.rank, failed.kind, failed.evidence) == (1, kind, evidence)
    assert type(error).__name__ in failed.message
    assert pickle.loads(pickle.dumps(failed)) == failed


@pytest.mark.parametrize("error", OF_THE_JOB, ids=str)
def test_what_is(error: BaseException) -> None:
    failed = of_exception(1, error, "trace")
    assert (failed.kind, failed.evidence) == (USER, OWN)


def test_every_row_of_the_table_has_a_text() -> None:
    assert {_cause(error) for error, _, _ in TEXTS} == set(CAUSES)


@pytest.mark.parametrize(("error", "kind", "evidence"), TEXTS, ids=lambda value: str(value)[:60])
def test_code_that_wraps_an_error_does_not_take_the_blame(
    error: BaseException, kind: FailureKind, evidence: Evidence
) -> None:
    def raised(wrap: Callable[[], None]) -> BaseException:
        try:
            wrap()
        except BaseException as caught:
            return caught
        raise AssertionError

    def on_purpose() -> None:
        raise CheckpointError("a checkpoint could not be written") from error

    def by_the_way() -> None:
        try:
            raise error
        except BaseException:
            {}["config"]

    def from_a_checkpoint_of_all_ranks() -> None:
        raise CheckpointError("not written") from CheckpointException("write", {1: (error, StackSummary())})

    for wrap in (on_purpose, by_the_way, from_a_checkpoint_of_all_ranks):
        failed = of_exception(1, raised(wrap), "trace")
        assert (failed.kind, failed.evidence) == (kind, evidence), wrap
        assert str(error).strip() in failed.message


def test_gloo_itself_where_a_peer_is_gone_and_where_it_is_late() -> None:
    def failure_of(lost: bool) -> Failed:
        store = dist.HashStore()
        with ThreadPoolExecutor(2) as threads:
            make = [
                threads.submit(dist.ProcessGroupGloo, dist.PrefixStore("g", store), rank, 2, timedelta(seconds=0.5))
                for rank in range(2)
            ]
            groups = [one.result() for one in make]
        del make
        if lost:
            groups.pop()
            gc.collect()
        with pytest.raises(RuntimeError) as caught:
            groups[0].allreduce(torch.ones(8)).wait()
        return of_exception(0, caught.value, "")

    for lost, text in (True, "peer"), (False, "Timed out waiting"):
        failed = failure_of(lost)
        assert (failed.kind, failed.evidence) == (INFRA, BROKEN), failed.message
        assert text in failed.message


@pytest.mark.parametrize("error", [SystemExit(1), SystemExit("no GPU"), SystemExit(), KeyboardInterrupt()], ids=repr)
def test_code_that_ends_the_interpreter_is_named(error: BaseException) -> None:
    try:
        raise error
    except BaseException as caught:
        failed = of_exception(1, caught, "trace")
    assert failed.kind is USER
    text = f"{type(error).__name__}: {error}".removesuffix(": ")
    assert re.search(rf"your code ended the interpreter by {text} \(.*test_failure\.py, line \d+: ra", failed.message)
    error.__context__ = torch.OutOfMemoryError("CUDA out of memory")
    assert of_exception(1, error, "trace").kind is MEMORY


def test_an_error_that_hides_its_context_on_purpose_is_its_own() -> None:
    error = ValueError("no such label")
    error.__context__, error.__suppress_context__ = torch.OutOfMemoryError("CUDA out of memory"), True
    assert of_exception(1, error, "").kind is USER


def test_a_loader_that_is_gone_was_killed_for_memory_where_the_system_killed_something() -> None:
    error = RuntimeError("DataLoader worker (pid(s) 46794) exited unexpectedly")
    failed = of_exception(1, error, "", system_killed=True)
    assert failed.kind is MEMORY
    assert "for want of memory" in failed.message
    assert of_exception(1, ValueError("shapes differ"), "", system_killed=True).kind is USER


def test_a_loss_that_is_not_finite_names_the_rank_it_came_from() -> None:
    failed = of_exception(0, NonFiniteLossError(7, 2, float("nan")), "trace")
    assert (failed.rank, failed.kind) == (2, FailureKind.NON_FINITE_LOSS)


def test_the_dead_worker_is_to_blame_and_not_those_whose_collective_broke() -> None:
    broken = Failed(0, FailureKind.INFRASTRUCTURE, "peer closed", evidence=Evidence.BROKEN_COLLECTIVE)
    wrapped = Failed(1, FailureKind.USER_ERROR, "my wrapper", evidence=Evidence.EXCEPTION)
    dead = Failed(2, FailureKind.INFRASTRUCTURE, "killed", evidence=Evidence.DEATH)
    later = Failed(3, FailureKind.INFRASTRUCTURE, "killed", evidence=Evidence.DEATH)
    assert first_failure([broken, wrapped, dead, later]) is dead
    assert first_failure([broken, wrapped]) is wrapped
    assert first_failure([broken]) is broken


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (SpecError("the job spec", (Problem("data", "the target has one class"),)), True),
        (CodeError("no module named nets"), True),
        (UsageError("table.csv (row 7): no number"), True),
        (CheckpointError("damaged"), False),
        (ValueError("shapes differ"), False),
        (NonFiniteLossError(3, 0, float("nan")), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_epochal_itself_refuses_is_told_apart(error: Exception, refused: bool) -> None:
    assert of_exception(1, error, "").refusal is refused
