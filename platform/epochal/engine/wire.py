"""Events as bytes, on their way from a worker to the agent.

The job's own code is in the worker's process, and Ray would unpickle whatever comes from there, which is to run it in
the agent. So workers tell JSON, and the agent looks at nothing else.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import ray
from pydantic import TypeAdapter
from ray.core.generated.common_pb2 import ErrorType, RayException  # type: ignore[attr-defined]

from epochal.engine.events import Done, Event, Failed, Heartbeat, Log, Reported, Started
from epochal.redaction import said

_KINDS: dict[str, TypeAdapter[Event]] = {
    kind.__name__: TypeAdapter(kind) for kind in (Started, Heartbeat, Reported, Log, Done, Failed)
}
_BYTES = b"RAW"
_CANCELLED = ErrorType.Value("TASK_CANCELLED")
_RAISED = {ErrorType.Value("TASK_EXECUTION_EXCEPTION"), ErrorType.Value("ACTOR_DIED")}
"""These ends of a task come with an exception of the worker's, or may."""


def encode(event: Event) -> bytes:
    """
    Raises:
        TypeError: what a target returned is not JSON.
    """
    return json.dumps([type(event).__name__, asdict(event)]).encode()


def decode(text: bytes) -> Event:
    """
    >>> decode(encode(Log(1, "epoch 3")))
    Log(rank=1, text='epoch 3', begun='')

    Raises:
        ValueError: this is no event.
    """
    try:
        kind, fields = json.loads(text)
        return _KINDS[kind].validate_python(fields)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"no event: {text[:200]!r} ({said(error)})") from error


def receive(stream: Any) -> Event | None:
    """The next event of a worker, by Ray's stream of what its task yields, where one is ready; None at its end.

    Raises:
        ray.exceptions.RayError: what Ray itself says about the worker.
        ValueError: it yielded something else.
    """
    text = receive_bytes(stream)
    return None if text is None else decode(text)


def receive_bytes(stream: Any) -> bytes | None:
    """The same, as it was told."""
    worker: Any = ray._private.worker.global_worker
    ended = False
    try:
        reference = worker.core_worker.try_read_next_object_ref_stream(stream._generator_ref)
    except ray.exceptions.ObjectRefStreamEndOfStreamError:
        reference, ended = stream._generator_ref, True
    ((data, metadata, _),) = worker.core_worker.get_objects([reference], -1)
    kind = metadata.split(b",")[0]
    if kind == _BYTES and not ended:
        return bytes(data.to_pybytes()) if data is not None else b""
    if not kind.isdigit():
        if ended:
            return None
        raise ValueError(f"no event: an object of the kind {kind!r} instead of bytes")
    if int(kind) == _CANCELLED:
        raise ray.exceptions.TaskCancelledError
    if int(kind) in _RAISED:
        raise ray.exceptions.UserCodeException(_text_of(worker.get_serialization_context(), data, metadata))
    # Any other error has been put there by Ray itself, and is raised by this.
    ray.get(reference)
    return None


def _text_of(context: Any, data: Any, metadata: bytes) -> str:
    """Of an exception, the text that Ray puts beside the pickle."""
    if data is None:
        return "the worker ended by an exception"
    try:
        document = context._deserialize_msgpack_data(data, metadata.split(b","))
        return str(RayException.FromString(document).formatted_exception_string)
    except Exception as error:
        return f"the worker ended by an exception that cannot be read: {type(error).__name__}"
