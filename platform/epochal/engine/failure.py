"""What can go wrong with a worker, and whose fault it is: the one place where Ray's and torch's errors get a kind."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum

import ray.exceptions as rx

from epochal.errors import NonFiniteError


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
    """One worker's failure. ``traceback`` is empty where there was no Python error to trace."""

    rank: int
    kind: FailureKind
    message: str
    traceback: str = ""
    evidence: Evidence = Evidence.DEATH


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

_BROKEN_COLLECTIVE = re.compile(
    r"gloo.*(connection (closed|reset|refused)|read error|write error|broken pipe|timed out)"
    r"|connection (closed|reset) by peer|socket closed|remote process exited|nccl (remote|watchdog)|recvvalue failed"
    r"|connectfullmesh|heartbeat monitor",
    re.IGNORECASE | re.DOTALL,
)

_DISK = re.compile("No space left on device|Disk quota exceeded|Input/output error|Stale file handle")
"""A disk that is full, broken or gone is not the job's own fault. By the text: safetensors has errors of its own."""


def of_ray(rank: int, error: BaseException) -> Failed:
    """What an error that Ray raised for a worker's task says about the worker."""
    if isinstance(error, rx.RayTaskError) and (cause := getattr(error, "cause", None)) is not None:
        return of_exception(rank, cause, str(error))
    kinds = (RAY_KINDS[known] for known in type(error).__mro__ if known in RAY_KINDS)
    return Failed(rank, next(kinds, FailureKind.INFRASTRUCTURE), _ray_message(error))


def of_exception(rank: int, error: BaseException, traceback: str) -> Failed:
    """What an exception that the training raised says about the worker."""
    kind, evidence = _classify(error)
    if isinstance(error, NonFiniteError):
        rank = error.rank  # every worker raises the same one
    name = type(error).__name__
    text = str(error).strip()
    return Failed(rank, kind, f"{name}: {text}" if text else name, traceback, evidence)


def _classify(error: BaseException) -> tuple[FailureKind, Evidence]:
    import torch
    import torch.distributed as dist

    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate" in str(error):
        return FailureKind.OUT_OF_MEMORY, Evidence.EXCEPTION
    if isinstance(error, NonFiniteError):
        return FailureKind.NON_FINITE_LOSS, Evidence.EXCEPTION
    if isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError | ConnectionError) and _BROKEN_COLLECTIVE.search(str(error))
    ):
        return FailureKind.INFRASTRUCTURE, Evidence.BROKEN_COLLECTIVE
    if _DISK.search(str(error)):
        return FailureKind.INFRASTRUCTURE, Evidence.EXCEPTION
    return FailureKind.USER_ERROR, Evidence.EXCEPTION


def _ray_message(error: BaseException) -> str:
    if isinstance(error, rx.WorkerCrashedError):
        return "the worker's process died (killed by a signal, by the system for want of memory, or crashed)"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
