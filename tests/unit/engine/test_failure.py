"""Every foreign error has a kind, and the strongest evidence names the culprit."""

from __future__ import annotations

import errno
import inspect
import pickle

import pytest
import ray.exceptions as rx
import torch
import torch.distributed as dist

from epochal.engine.failure import RAY_KINDS, Evidence, Failed, FailureKind, first_failure, of_exception, of_ray
from epochal.errors import NonFiniteLossError


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
        (rx.RayTaskError("run", "trace", MemoryError("full")), FailureKind.OUT_OF_MEMORY),
        (rx.RayTaskError("run", "trace", ValueError("bad")), FailureKind.USER_ERROR),
    ],
)
def test_rays_errors(error: rx.RayError, kind: FailureKind) -> None:
    failed = of_ray(3, error)
    assert (failed.rank, failed.kind) == (3, kind)
    assert failed.message


@pytest.mark.parametrize(
    ("error", "kind", "evidence"),
    [
        (ValueError("shapes differ"), FailureKind.USER_ERROR, Evidence.EXCEPTION),
        (SystemExit(1), FailureKind.USER_ERROR, Evidence.EXCEPTION),
        (MemoryError(), FailureKind.OUT_OF_MEMORY, Evidence.EXCEPTION),
        (torch.OutOfMemoryError("CUDA out of memory"), FailureKind.OUT_OF_MEMORY, Evidence.EXCEPTION),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            FailureKind.OUT_OF_MEMORY,
            Evidence.EXCEPTION,
        ),
        (
            RuntimeError("[/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1234"),
            FailureKind.INFRASTRUCTURE,
            Evidence.BROKEN_COLLECTIVE,
        ),
        (dist.DistStoreError("timed out"), FailureKind.INFRASTRUCTURE, Evidence.BROKEN_COLLECTIVE),
        (dist.DistNetworkError("no route"), FailureKind.INFRASTRUCTURE, Evidence.BROKEN_COLLECTIVE),
        (OSError(errno.ENOSPC, "No space left on device"), FailureKind.INFRASTRUCTURE, Evidence.EXCEPTION),
        (FileNotFoundError(errno.ENOENT, "No such file"), FailureKind.USER_ERROR, Evidence.EXCEPTION),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), FailureKind.USER_ERROR, Evidence.EXCEPTION),
    ],
)
def test_the_trainings_exceptions(error: BaseException, kind: FailureKind, evidence: Evidence) -> None:
    failed = of_exception(1, error, "trace")
    assert (failed.rank, failed.kind, failed.evidence) == (1, kind, evidence)
    assert type(error).__name__ in failed.message
    assert pickle.loads(pickle.dumps(failed)) == failed


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
