"""Every error that Epochal raises on purpose.

    EpochalError                    exit 1
    ├── SpecError                   exit 2   the job spec is wrong: all problems at once
    ├── UsageError                  exit 2   the command is wrong
    ├── NotFoundError               exit 3   no such job, run, architecture, dataset, ...
    ├── ConflictError               exit 4   it exists already, or is in a state that forbids this
    │   ├── StaleLeaseError                  an agent's attempt was ended by someone else
    │   └── OlderLedgerError                 the ledger was written by an older version, and was not to be upgraded
    ├── UnreachableError            exit 5   server, cluster or tracking server does not answer
    ├── AuthError                   exit 5   no token, or one that is not, or no longer, known
    │   └── ForbiddenError                   a known token, whose role does not allow this
    ├── TooLargeError               exit 2   more than the server takes
    ├── CodeError                   exit 2   the shipped code cannot be packed or imported
    ├── CapacityError               exit 5   the cluster has no room for the workers, now or ever
    └── TrainingError               exit 1   a worker's own failure
        ├── NonFiniteError                   numbers became NaN or infinite
        │   ├── NonFiniteLossError           the loss
        │   └── NonFiniteStateError          a parameter, or the optimizer's state
        ├── DeviceError                      the worker has no GPU, or not the one that is reserved for it
        └── CheckpointError                  saved state is damaged or does not fit
            └── CheckpointFormatError        it is of a format that another version of Epochal writes

Each passes its fields on through ``super().__init__``, from which it is made again, so that it survives the pickling
between Ray processes. ``hint`` says what to do next. ``as_document`` and ``from_document`` carry one over HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from typing import Any


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a job spec.

    ``path`` is dotted (``train.optimizer.lr``), empty for the spec as a whole. ``line`` and ``column`` count from 1;
    for a missing key they are those of its section, and what only the data shows has no column. Where the value does
    not come from the file both are None, and ``origin`` says where from: ``--set`` or ``default``.
    """

    path: str
    message: str
    line: int | None = None
    column: int | None = None
    value: Any = None
    hint: str = ""
    origin: str = ""

    def __str__(self) -> str:
        place = f"line {self.line}" + (f", column {self.column}" if self.column is not None else "")
        where = place if self.line is not None else self.origin
        parts = [part for part in (where, self.path, self.message) if part]
        hint = f" ({self.hint})" if self.hint else ""
        return f"{': '.join(parts)}{hint}"


class EpochalError(Exception):
    """The root: what went wrong, and what to do next."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class UsageError(EpochalError):
    exit_code = 2


class SpecError(EpochalError):
    """A job spec that cannot be run, with every problem found in it."""

    exit_code = 2

    def __init__(self, source: str, problems: tuple[Problem, ...]) -> None:
        Exception.__init__(self, source, problems)
        self.source = source
        self.problems = problems
        self.message = f"{source}: {len(problems)} problem{'s' if len(problems) != 1 else ''}"
        self.hint = "`epochal schema` prints every field; `epochal validate FILE` checks one"

    def unplaced(self) -> tuple[Problem, ...]:
        """The problems without their lines, which are of a text that nobody has written."""
        return tuple(replace(one, line=None, column=None) for one in self.problems)

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"  {problem}" for problem in self.problems)])


class NotFoundError(EpochalError):
    """Nothing of that kind has that name."""

    exit_code = 3

    def __init__(self, kind: str, name: str, known: tuple[str, ...] = (), hint: str = "") -> None:
        Exception.__init__(self, kind, name, known, hint)
        self.kind = kind
        self.name = name
        self.known = known
        self.message = f"no {kind.replace('_', ' ')} is named {name!r}"
        self.hint = hint or did_you_mean(name, known)

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class ConflictError(EpochalError):
    exit_code = 4


class StaleLeaseError(ConflictError):
    """The lease an agent holds is no longer worth anything: what it does must not count any more."""

    def __init__(self, job_id: str, epoch: int, newest: int, state: str) -> None:
        Exception.__init__(self, job_id, epoch, newest, state)
        self.job_id = job_id
        self.epoch = epoch
        self.newest = newest
        self.state = state
        self.message = f"attempt {epoch} of {job_id} is over: the job is {state} with attempt {newest}"
        self.hint = "end this attempt's workers and write nothing more for it"


class OlderLedgerError(ConflictError):
    pass


class UnreachableError(EpochalError):
    exit_code = 5


class AuthError(EpochalError):
    exit_code = 5


class ForbiddenError(AuthError):
    pass


class TooLargeError(EpochalError):
    exit_code = 2


class CodeError(EpochalError):
    exit_code = 2


class CapacityError(EpochalError):
    """The cluster has no room for the workers asked for.

    ``permanent`` says that no wait would help: its nodes are too small or too few, even when idle.
    """

    exit_code = 5

    def __init__(self, message: str, hint: str = "", permanent: bool = True) -> None:
        Exception.__init__(self, message, hint, permanent)
        self.message = message
        self.hint = hint
        self.permanent = permanent


class TrainingError(EpochalError):
    """A failure of the training itself, on one worker."""


class DeviceError(TrainingError):
    """The worker has no GPU, or not the one that is reserved for it."""


class NonFiniteError(TrainingError):
    """Numbers became NaN or infinite: on every worker the same error, ``rank`` is the lowest that saw it."""

    def __init__(self, step: int, rank: int, *details: Any) -> None:
        Exception.__init__(self, step, rank, *details)
        self.step = step
        self.rank = rank
        self.message = f"NaN or infinity at step {step} on rank {rank}"
        self.hint = "lower train.optimizer.lr, set train.clip_grad_norm, or use bf16 instead of fp16"


class NonFiniteLossError(NonFiniteError):
    """The loss became NaN or infinite: the earliest step, and the lowest rank at that step."""

    def __init__(self, step: int, rank: int, value: float) -> None:
        super().__init__(step, rank, value)
        self.value = value
        self.message = f"the loss is {value} at step {step} on rank {rank}"


class NonFiniteStateError(NonFiniteError):
    """A step with a finite loss left NaN or infinity behind: ``name`` is the first tensor that holds any."""

    def __init__(self, step: int, rank: int, name: str) -> None:
        super().__init__(step, rank, name)
        self.name = name
        self.message = (
            f"{name} holds NaN or infinity after step {step} on rank {rank}, although the loss is finite; this"
            " checkpoint was not saved"
        )


class CheckpointError(TrainingError):
    pass


class CheckpointFormatError(CheckpointError):
    """The checkpoint is of format ``found``, and this version reads only ``read``: it is not damaged."""

    def __init__(self, path: str, found: int, read: int) -> None:
        Exception.__init__(self, path, found, read)
        self.path = path
        self.found = found
        self.read = read
        age = "a newer" if found > read else "an older"
        self.message = (
            f"{path} is in format {found}, that of {age} version of Epochal, and this one reads format {read}; the"
            " checkpoint is left as it is"
        )
        self.hint = "with the version that wrote it, `train.init_from` starts a new job from its weights"


def as_document(error: EpochalError) -> dict[str, Any]:
    """The error as JSON types: its kind, message and hint, and the arguments that it is made from again."""
    return {
        "kind": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        "arguments": [_plain(argument) for argument in error.args],
    }


def from_document(document: Mapping[str, Any]) -> EpochalError:
    """The error that ``as_document`` described; a plain ``EpochalError`` where this version does not know its kind.

    >>> error = from_document(as_document(NotFoundError("job", "x", ("y",))))
    >>> type(error).__name__, str(error)
    ('NotFoundError', "no job is named 'x'; known: y")
    """
    arguments = list(document.get("arguments", ()))
    try:
        if document.get("kind") == SpecError.__name__:
            source, problems = arguments
            return SpecError(source, tuple(Problem(**problem) for problem in problems))
        return _KINDS[str(document.get("kind"))](*map(_hashable, arguments))
    except (KeyError, TypeError, ValueError):  # of another version of Epochal
        return EpochalError(str(document.get("message", "")), str(document.get("hint", "")))


def _plain(argument: Any) -> Any:
    if isinstance(argument, tuple | list):
        return [_plain(one) for one in argument]
    if isinstance(argument, Problem):
        return {**asdict(argument), "value": _shown(argument.value)}
    return argument


def _shown(value: Any) -> Any:
    """A value as JSON can carry it."""
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def _hashable(argument: Any) -> Any:
    return tuple(argument) if isinstance(argument, list) else argument


def _kinds(root: type[EpochalError]) -> dict[str, type[EpochalError]]:
    found = {root.__name__: root}
    for below in root.__subclasses__():
        found |= _kinds(below)
    return found


_KINDS = _kinds(EpochalError)


def did_you_mean(name: str, known: tuple[str, ...]) -> str:
    """A hint naming the closest of ``known``, or all of them where none is close and they are few."""
    lower = {one.lower(): one for one in known}
    close = get_close_matches(name.lower(), lower, n=max(1, len(lower)), cutoff=0.6)
    if close:
        more = f", or one of {len(close) - 3:,} more" if len(close) > 3 else ""
        return f"did you mean {' or '.join(repr(lower[match]) for match in close[:3])}{more}?"
    if 0 < len(known) <= 25:
        return f"known: {', '.join(sorted(known))}"
    return ""


def some(names: Sequence[str], shown: int = 3) -> str:
    """The first of many, and how many more there are.

    >>> some(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
