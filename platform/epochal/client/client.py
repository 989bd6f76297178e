"""``Client``: what the commands do, from Python."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from epochal.client.address import find_address
from epochal.client.http import Http, Request
from epochal.client.jobs import JobCalls
from epochal.client.sweeps import SweepCalls
from epochal.errors import UsageError
from epochal.ledger.values import AgentInfo, FullJob, Quota, QuotaKind, Token
from epochal.names import checked_name, in_path

if TYPE_CHECKING:
    from epochal.client.submission import Source, Submission
    from epochal.spec.job import JobSpec

_NOT_THERE = frozenset({404})


@dataclass(frozen=True)
class Submitted:
    """What became of a submission.

    ``created`` is False where the same key was used before: ``job`` is the job of then. ``same_as`` is the id of a job
    of the same spec and code that has already succeeded.
    """

    job: FullJob
    created: bool
    same_as: str | None

    @property
    def id(self) -> str:
        return self.job.id

    def to_dict(self) -> dict[str, Any]:
        return {**self.job.to_dict(), "created": self.created, "same_as": self.same_as}


class Client(JobCalls, SweepCalls):
    """An Epochal server, with the verbs of the command line. Threads may share one.

    Without arguments it talks to the server that the commands talk to: ``EPOCHAL_SERVER``, the current context, or
    what ``epochal up`` started on this machine.

    >>> from epochal.client import Client
    >>> with Client() as client:                                        # doctest: +SKIP
    ...     job = client.submit("jobs/quickstart.yaml", ["train.epochs=3"])
    ...     client.wait(job.id).state
    <JobState.SUCCEEDED: 'SUCCEEDED'>
    """

    def __init__(
        self,
        server: str | None = None,
        token: str | None = None,
        *,
        context: str | None = None,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        """
        Args:
            server: its URL.
            token: default: as the commands find it.
            context: one of ``epochal config list``, instead of a URL.
            notice: told in words when a server that is being followed goes away and comes back.

        Raises:
            UnreachableError: nothing says which server.
            UsageError, NotFoundError: what says so is wrong.
        """
        self.address = find_address(server, context)
        self._http = Http(self.address.server, token or self.address.token)
        self._notice = notice or (lambda _text: None)
        self._away = threading.Lock()

    @property
    def server(self) -> str:
        return self._http.server

    def __getstate__(self) -> object:
        raise TypeError("a Client cannot be pickled, nor its token: make one in each process")

    def validate(self, spec: Source, overrides: str | Sequence[str] = ()) -> JobSpec:
        """Check a spec without submitting it; what it says with every default filled in.

        Raises:
            SpecError: with every problem.
        """
        from epochal.client.submission import load

        return load(spec, overrides).spec

    def prepare(
        self, spec: Source, overrides: str | Sequence[str] = (), command: Sequence[str] | None = None
    ) -> Submission:
        """All that ``submit`` would send, without sending it.

        Raises:
            SpecError: with every problem.
            CodeError: the code cannot be packed.
        """
        from epochal.client.submission import load, prepare
        from epochal.settings import home

        return prepare(load(spec, overrides), home(), command)

    def submit(
        self, spec: Source | Submission, overrides: str | Sequence[str] = (), *, key: str | None = None
    ) -> Submitted:
        """Queue a job, with the code that its spec ships.

        Args:
            spec: a file, a mapping as in such a file (numbers and arrays of numpy, paths, enums, dataclasses and
                pydantic models are taken for what they stand for), or what ``prepare`` made.
            overrides: ``path=value``, such as ``train.epochs=3``.
            key: your own id of this submission: doing it again with the same key gives the same job. Without one,
                each call queues a job, and exactly one, even where the answer gets lost on its way.

        Raises:
            SpecError, CodeError: it cannot be submitted.
            ConflictError: the key belongs to another spec, or other code.
        """
        from epochal.client.submission import Submission

        submission = spec if isinstance(spec, Submission) else self.prepare(spec, overrides)
        self._upload(submission)
        body = submission.document(key or f"auto-{uuid.uuid4().hex}")
        answer = self._http.json(Request("POST", "/jobs", body=body, repeatable=True))
        # Under a key of this call's own a job that was there is this call's, whose first answer got lost.
        created = key is None or bool(answer["created"])
        return Submitted(FullJob.from_dict(answer["job"]), created, answer["same_as"])

    def agents(self) -> list[AgentInfo]:
        """The agents that the server has heard of, with their nodes."""
        return [AgentInfo.from_dict(agent) for agent in self._http.get("/agents")["agents"]]

    def overview(self) -> Mapping[str, Any]:
        """How everything stands, in one answer: counts, queue, running and recent jobs, agents."""
        answer: Mapping[str, Any] = self._http.get("/overview")
        return answer

    def whoami(self) -> Mapping[str, Any]:
        """The user and the role that the token stands for."""
        answer: Mapping[str, Any] = self._http.get("/whoami")
        return answer

    # For administrators alone, but for ``quotas``.

    def tokens(self) -> list[Token]:
        """Every token, without its secret."""
        return [Token.from_dict(token) for token in self._http.get("/tokens")["tokens"]]

    def create_token(
        self, user: str, role: str = "user", *, name: str = "", ttl_seconds: float | None = None
    ) -> tuple[Token, str]:
        """A new token, and its secret, which is shown this once.

        Args:
            role: ``viewer`` looks, ``user`` changes its own jobs, ``admin`` everything, ``agent`` runs jobs as
                the agent that ``user`` names.
            name: what it is for.
            ttl_seconds: how long it is good for; default: until it is revoked.
        """
        owner = checked_name("agent" if role == "agent" else "user", user)
        body = {"user": owner, "role": role, "name": name, "ttl_seconds": ttl_seconds}
        answer = self._http.post("/tokens", body)
        return Token.from_dict(answer["token"]), answer["secret"]

    def revoke_token(self, identity: str | int) -> None:
        """Make a token worthless, at once."""
        self._http.send(Request("DELETE", f"/tokens/{in_path('token', str(identity))}"))

    def quotas(self) -> list[Quota]:
        """The limits of users and queues."""
        return [Quota.from_dict(quota) for quota in self._http.get("/quotas")["quotas"]]

    def set_quota(
        self, kind: str, name: str, *, jobs: int | None = None, cpus: float | None = None, gpus: float | None = None
    ) -> Quota:
        """The most that the running jobs of a user or a queue may take together.

        Args:
            kind: ``user`` or ``queue``.
            name: whose; ``*`` for each one that has no quota of its own.
            jobs, cpus, gpus: None is no limit.
        """
        body = {"jobs": jobs, "cpus": cpus, "gpus": gpus}
        return Quota.from_dict(self._http.json(Request("PUT", _quota(kind, name), body=body)))

    def delete_quota(self, kind: str, name: str) -> None:
        """Lift the limits of a user or a queue."""
        self._http.send(Request("DELETE", _quota(kind, name)))

    def now(self) -> float:
        """The server's time in seconds since 1970, good to a second."""
        return self._http.now()

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _upload(self, submission: Submission) -> None:
        """Send the code, where the server does not have it."""
        package = submission.package
        if package is None:
            return
        path = f"/code/{package.digest}"
        if self._http.send(Request("HEAD", path, answers=_NOT_THERE)).status_code in _NOT_THERE:
            self._http.send(Request("PUT", path, content=package.path.read_bytes()))


def _quota(kind: str, name: str) -> str:
    if kind not in tuple(QuotaKind):
        raise UsageError(f"a quota is of a user or of a queue, not of {kind!r}")
    return f"/quotas/{kind}/{in_path('quota', name)}"
