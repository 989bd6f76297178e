"""What can go wrong with a worker, and whose fault it is: the one place where Ray's and torch's errors get a kind."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import NamedTuple

import ray.exceptions as rx

from epochal.errors import EpochalError, NonFiniteError, SpecError
from epochal.own_code import ended
from epochal.redaction import named, said


class FailureKind(StrEnum):
    """Why a worker failed; decides which retry budget a new attempt draws on."""

    USER_ERROR = "USER_ERROR"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    INFRASTRUCTURE = "INFRASTRUCTURE"
    NON_FINITE_LOSS = "NON_FINITE_LOSS"
    HANG = "HANG"


class Evidence(IntEnum):
    """How well a failure explains itself; of several, the strongest names the culprit.

    A worker whose peer died sees a broken collective, and its own code may turn that into any exception.
    """

    BROKEN_COLLECTIVE = 0
    EXCEPTION = 1
    DEATH = 2


@dataclass(frozen=True)
class Failed:
    """One worker's failure. ``traceback`` is empty where there was no Python error to trace; ``refusal``: the spec, the
    data or the code is wrong, and Epochal says so."""

    rank: int
    kind: FailureKind
    message: str
    traceback: str = ""
    evidence: Evidence = Evidence.DEATH
    refusal: bool = False


def first_failure(failures: Iterable[Failed]) -> Failed:
    """The failure that explains the others: the strongest evidence, and of that the first to arrive."""
    return max(failures, key=lambda failed: failed.evidence)


GRACE = {Evidence.BROKEN_COLLECTIVE: 2.0, Evidence.EXCEPTION: 0.1, Evidence.DEATH: 0.0}
"""Seconds to wait for stronger evidence. A dead worker's process is noticed within 10 ms on its own node."""

_INFRASTRUCTURE = (
    rx.WorkerCrashedError,
    rx.LocalRayletDiedError,
    rx.NodeDiedError,
    rx.RaySystemError,
    rx.RpcError,
    rx.ObjectLostError,
    rx.ObjectFetchTimedOutError,
    rx.ReferenceCountingAssertionError,
    rx.ObjectFreedError,
    rx.OwnerDiedError,
    rx.ObjectReconstructionFailedError,
    rx.GetTimeoutError,
    rx.PlasmaObjectNotAvailable,
    rx.OutOfDiskError,
    rx.ObjectStoreFullError,
    rx.RuntimeEnvSetupError,
    rx.TaskPlacementGroupRemoved,
    rx.ActorPlacementGroupRemoved,
    rx.TaskUnschedulableError,
    rx.ActorUnschedulableError,
    rx.TaskCancelledError,
    rx.RayActorError,
    rx.ActorDiedError,
    rx.ActorUnavailableError,
    rx.ActorAlreadyExistsError,
    rx.ActorHandleNotFoundError,
    rx.AsyncioActorExit,
    rx.PendingCallsLimitExceeded,
    rx.AuthenticationError,
    rx.StreamingGeneratorReplayInconsistentError,
    rx.ObjectRefStreamEndOfStreamError,
    rx.RayChannelError,
    rx.RayChannelTimeoutError,
    rx.RayCgraphCapacityExceeded,
    rx.RayDirectTransportError,
)
_USER = (
    rx.RayTaskError,
    rx.UserCodeException,
    rx.CrossLanguageError,
    rx.OufOfBandObjectRefSerializationException,
    rx.UnserializableException,
)

RAY_KINDS: Mapping[type[rx.RayError], FailureKind] = {
    rx.OutOfMemoryError: FailureKind.OUT_OF_MEMORY,
    **dict.fromkeys(_INFRASTRUCTURE, FailureKind.INFRASTRUCTURE),
    **dict.fromkeys(_USER, FailureKind.USER_ERROR),
}
"""Every error of Ray (a test compares this with ``ray.exceptions``)."""


class Cause(NamedTuple):
    """A row of the table below: an exception one of whose classes is called ``of``, with ``text`` in its message."""

    kind: FailureKind
    evidence: Evidence
    of: str
    text: str = ""


_INFRA, _MEMORY = FailureKind.INFRASTRUCTURE, FailureKind.OUT_OF_MEMORY
_OWN, _BROKEN = Evidence.EXCEPTION, Evidence.BROKEN_COLLECTIVE

CAUSES = (
    Cause(FailureKind.NON_FINITE_LOSS, _OWN, "NonFiniteError"),
    # Memory of the process, of the GPU, and that which loaders share with it. A loader that was killed by SIGKILL was
    # killed by the system, for want of memory: nobody else does.
    Cause(_MEMORY, _OWN, "MemoryError"),
    Cause(_MEMORY, _OWN, "OutOfMemoryError"),
    # As told by what read a sample in a loader process, from which the exception itself does not come.
    Cause(_MEMORY, _OWN, "EpochalError", r"cannot be read.*: \w*MemoryError\b"),
    Cause(_MEMORY, _OWN, "Exception", "DefaultCPUAllocator: (can't allocate|not enough) memory"),
    Cause(_MEMORY, _OWN, "RuntimeError", "CUDA (driver )?error: out of memory"),
    Cause(_MEMORY, _OWN, "RuntimeError", "CU(BLAS|SOLVER|SPARSE|DNN)_STATUS_ALLOC_FAILED"),
    Cause(_MEMORY, _OWN, "RuntimeError", r"DataLoader worker .* is killed by signal: Killed"),
    Cause(_MEMORY, _OWN, "RuntimeError", "DataLoader worker .* out of shared memory"),
    Cause(_MEMORY, _OWN, "Exception", "unable to (mmap|allocate shared memory).*Cannot allocate"),
    Cause(_MEMORY, _OWN, "OSError", "Cannot allocate memory"),
    # Without the signal's name: `of_exception` is told whether the system killed something meanwhile.
    Cause(_INFRA, _OWN, "RuntimeError", r"DataLoader worker .* (exited unexpectedly|is killed)"),
    Cause(_INFRA, _OWN, "DeviceError"),
    Cause(_INFRA, _OWN, "UnreachableError"),
    # A GPU, its driver or its links. Not here: "device-side assert", "illegal memory access", which the code caused.
    Cause(_INFRA, _OWN, "RuntimeError", "uncorrectable (ECC|NVLink) error"),
    Cause(_INFRA, _OWN, "RuntimeError", "CUDA error: unspecified launch failure"),
    Cause(_INFRA, _OWN, "RuntimeError", "CUDA error: the launch timed out"),
    Cause(_INFRA, _OWN, "RuntimeError", "CUDA error: hardware stack error"),
    Cause(_INFRA, _OWN, "RuntimeError", "CUDA error: .*peer GPU memory over nvlink"),
    Cause(_INFRA, _OWN, "RuntimeError", "CUDA.* busy or unavailable"),
    Cause(_INFRA, _OWN, "RuntimeError", "CUDA error: (system not yet initialized|unknown error)"),
    Cause(_INFRA, _OWN, "RuntimeError", "CUDA error: .*(fallen off the bus|GPU is lost)"),
    # NCCL says that it was used wrongly: it would say so again.
    Cause(FailureKind.USER_ERROR, _OWN, "DistBackendError", "invalid (usage|argument)"),
    # A peer is gone, or does not answer. gloo raises plain RuntimeErrors with the path of its source in them. Python's
    # own ConnectionError is not here: what collectives use raises none, so it is about a service of the job's own code.
    Cause(_INFRA, _BROKEN, "DistError"),
    Cause(_INFRA, _BROKEN, "RuntimeError", r"\bgloo/.*\.(cc|h):\d+\]"),
    Cause(_INFRA, _BROKEN, "RuntimeError", "Application timeout caused pair closure"),
    Cause(_INFRA, _BROKEN, "RuntimeError", "NCCL communicator was aborted|Watchdog caught collective"),
    Cause(_INFRA, _BROKEN, "RuntimeError", "NCCL Error|ncclRemoteError|ncclSystemError"),
    # A disk that is full, broken or gone. Of any class: safetensors has errors of its own.
    Cause(_INFRA, _OWN, "BaseException", "No space left on device|Disk quota exceeded"),
    Cause(_INFRA, _OWN, "BaseException", "Input/output error|Stale file handle"),
)
"""What is not the fault of the job's code: the first row that fits an exception. By names: the driver has no torch."""

_LOADER_GONE = re.compile("DataLoader worker .* exited unexpectedly")


def of_ray(rank: int, error: BaseException) -> Failed:
    """What an error that Ray raised for a worker's task says about the worker."""
    if isinstance(error, rx.UserCodeException):  # raised before the worker's own code could tell of it
        told = said(error)
        return Failed(rank, FailureKind.USER_ERROR, told.rpartition("\n")[2], told)
    kinds = (RAY_KINDS[known] for known in type(error).__mro__ if known in RAY_KINDS)
    kind = next(kinds, FailureKind.INFRASTRUCTURE)
    if isinstance(error, rx.RayTaskError) and (cause := _cause(error)) is not None:
        kind = cause.kind  # beside its training: it could not open its log, for instance
    return Failed(rank, kind, _ray_message(error))


def of_exception(rank: int, error: BaseException, traceback: str, system_killed: bool = False) -> Failed:
    """What an exception that the training raised says about the worker.

    ``system_killed``: the system has killed a process for want of memory while this training ran.
    """
    if isinstance(error, SystemExit | KeyboardInterrupt):
        told, told.__cause__ = ended(error), error
        error = told
    causes = [(cause, each) for each in _chain(error) if (cause := _cause(each)) is not None]
    kind, evidence, name, text = FailureKind.USER_ERROR, Evidence.EXCEPTION, type(error).__name__, said(error)
    if causes:
        cause, source = max(causes, key=lambda found: found[0].evidence)
        kind, evidence = cause.kind, cause.evidence
        if isinstance(source, NonFiniteError):
            rank = source.rank  # every worker raises the same one
        if system_killed and _LOADER_GONE.search(str(source)):
            kind, text = FailureKind.OUT_OF_MEMORY, f"{text} (the system killed a process for want of memory)"
        if source is not error and said(source) not in text:
            text = f"{text} (because of {named(source)})"
    refusal = isinstance(error, EpochalError) and error.exit_code == SpecError.exit_code
    return Failed(rank, kind, f"{name}: {text}" if text != name else name, traceback, evidence, refusal)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and what led to it, outermost first: code that wraps an error does not change whose fault it is."""
    waiting, seen = [error], set()
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if (before := one.__cause__ or (None if one.__suppress_context__ else one.__context__)) is not None:
            waiting.append(before)
        if isinstance(one, BaseExceptionGroup):
            waiting.extend(one.exceptions)
        # torch.distributed.checkpoint gathers the exceptions of all ranks, each with its stack.
        if isinstance(failures := getattr(one, "failures", None), dict):
            waiting.extend(pair[0] for pair in failures.values() if isinstance(pair, tuple))


def _cause(error: BaseException) -> Cause | None:
    names = {known.__name__ for known in type(error).__mro__}
    text = said(error)
    return next((row for row in CAUSES if row.of in names and re.search(row.text, text, re.DOTALL)), None)


def _ray_message(error: BaseException) -> str:
    if isinstance(error, rx.WorkerCrashedError):
        return "the worker's process died (killed by a signal, by the system for want of memory, or crashed)"
    if isinstance(error, rx.NodeDiedError):
        return "Ray takes the worker's node for dead"
    name, first = type(error).__name__, said(error).splitlines()[0]
    return f"{name}: {first}" if first != name else name
