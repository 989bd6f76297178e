"""The ledger over HTTP, as an agent needs it: ``agent.port.JobSource``.

An answer that does not come within seconds is an ``UnreachableError``; the agent goes on without it and tells later.
What is safe to repeat is repeated for a moment, so that a server that restarts is hardly noticed.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from epochal.client.http import Http, Patience, Request
from epochal.client.jobs import job_path
from epochal.client.renewal_batcher import RenewalBatcher
from epochal.client.sweeps import trials_of
from epochal.errors import NotFoundError
from epochal.files import write_atomically
from epochal.ledger import documents
from epochal.ledger.capacity import Group, Node
from epochal.ledger.states import EventKind, JobState, Reason
from epochal.ledger.sweep_values import NewInput, StoredInput, SweepRequest, TrialRecord
from epochal.ledger.values import AgentInfo, Attempt, Held, HeldShare, Job, Lease, Renewed
from epochal.names import in_path
from epochal.urls import without_password

# Short, as the agent tells again later what got no answer.
_PATIENCE = Patience(answer=10.0, outage=0.5)
_CODE_SECONDS = 120.0  # but without its code a job cannot start at all
# The server refuses a longer one, and what was to be told would be lost; less the words about what is left out.
_LONGEST_NOTE = documents.MESSAGE_LIMIT - 100
_GAP = frozenset({409})
_BATCH = 1000
"""Inputs, and trials, in one request; of each at most so many bytes as JSON:"""
_BYTES = 2**20


class RemoteLedger:
    """The part of a ledger that agents use, behind a server. Threads may share one.

    Errors are those of the ledger (``StaleLeaseError``, ``ConflictError``, ...); ``UnreachableError`` where no answer
    comes, ``AuthError`` where the token is not that of an agent.
    """

    def __init__(self, server: str, token: str | None = None) -> None:
        self._http = Http(server, token, _PATIENCE)
        self._renewals = RenewalBatcher(self._http)

    @property
    def label(self) -> str:
        return self._http.server

    def heartbeat(
        self,
        name: str,
        incarnation: str,
        nodes: Sequence[Node],
        held: Sequence[HeldShare],
        detail: Mapping[str, Any],
        storage: str | None = None,
    ) -> AgentInfo:
        """Say that this agent lives, on which nodes, and which leases (job, epoch) it carries out."""
        body = {
            "incarnation": incarnation,
            "nodes": [node.to_dict() for node in nodes],
            "held": [list(one) for one in held],
            "detail": dict(detail),
            "storage": storage,
        }
        request = Request("PUT", f"/agents/{in_path('agent', name)}", body=body)
        return AgentInfo.from_dict(self._http.json(request))

    def provision(self, agent: str, groups: Sequence[Group]) -> dict[str, int]:
        """Say what worker groups the cluster of ``agent`` (``name/incarnation``) has, and could have; how many nodes of
        each are needed.

        Raises:
            NotFoundError: the server is of a version that does not know groups.
        """
        name, _, incarnation = agent.partition("/")
        body = {"incarnation": incarnation, "groups": [group.to_dict() for group in groups]}
        answer = self._http.json(Request("PUT", f"/agents/{in_path('agent', name)}/groups", body=body))
        return {str(group): int(count) for group, count in answer["needed"].items()}

    def lease(self, agent: str, ttl: float, *, wait: float = 0.0, secret: str = "") -> Lease | None:
        """The next job for ``agent`` (``name/incarnation``); None where none came in ``wait`` s."""
        name, _, incarnation = agent.partition("/")
        # With the same secret the server gives the same lease: that is what makes it safe to ask again.
        own = secret or secrets.token_urlsafe(32)
        path, body = f"/agents/{in_path('agent', name)}/lease", {"incarnation": incarnation, "ttl": ttl, "wait": wait}
        answer = self._http.json(Request("POST", path, body={**body, "secret": own}, wait=wait, repeatable=True))
        return None if answer is None else Lease.from_dict(answer)

    def renew(self, lease: Lease, ttl: float, progress: Mapping[str, Any] | None = None) -> Renewed:
        return self._renewals.renew(lease, ttl, progress)

    def running(self, lease: Lease, world_size: int, detail: Mapping[str, Any] | None = None) -> Job:
        return self._job(lease, "running", {"world_size": world_size, "detail": dict(detail or {})})

    def set_run(self, lease: Held, run_id: str, tracking_uri: str, experiment_id: str | None = None) -> Job:
        body = {"run_id": run_id, "tracking_uri": without_password(tracking_uri), "experiment_id": experiment_id}
        return self._job(lease, "run", body)

    def set_data(self, lease: Lease, data: Mapping[str, Any]) -> None:
        with suppress(NotFoundError):  # an older server takes none; that a lease is lost is told by its renewal
            self._tell(lease, "data", {"data": dict(data)})

    def saved(self, lease: Lease, step: int, path: str) -> None:
        self._tell(lease, "saved", {"step": step, "path": path})

    def note(
        self,
        lease: Held,
        /,
        kind: EventKind,
        message: str = "",
        detail: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> Job:
        body = {"kind": kind.value, "message": message, "detail": dict(detail or {}), "key": key}
        return self._job(lease, "note", body, repeatable=key is not None)

    def finish(self, lease: Lease, state: JobState, reason: Reason, message: str = "") -> Job:
        return self._job(lease, "finish", {"state": state.value, "reason": reason.value, "message": message})

    def retry(self, lease: Lease, reason: Reason, message: str = "", lost: bool = False) -> Job:
        return self._job(lease, "retry", {"reason": reason.value, "message": message, "lost": lost})

    def lease_again(self, lease: Lease, ttl: float, reason: Reason, message: str = "") -> Lease | None:
        answer = self._tell(lease, "again", {"ttl": ttl, "reason": reason.value, "message": message})
        return None if answer is None else Lease.from_dict(answer)

    def pause(self, lease: Lease, reason: Reason = Reason.STOPPED_BY_USER, message: str = "") -> Job:
        return self._job(lease, "pause", {"reason": reason.value, "message": message})

    def stopped(self, lease: Lease, message: str = "") -> Job:
        return self._job(lease, "stopped", {"message": message})

    def now(self) -> float:
        """The server's time in seconds since 1970, good to a second; this machine's before the first answer."""
        return self._http.now()

    def job(self, ref: str) -> Job:
        return Job.from_dict(self._http.get(job_path(ref)))

    def attempts(self, job_id: str) -> list[Attempt]:
        return [Attempt.from_dict(one) for one in self._http.get(job_path(job_id, "attempts"))["attempts"]]

    def append_inputs(
        self, lease: Held, after_seq: int, told: Sequence[NewInput], changed: Sequence[TrialRecord] = ()
    ) -> int:
        """Write down what a sweep's controller was told, and the trials that changed with it: of many, batch by batch,
        the trials once all inputs are there."""
        inputs = list(_batches([one.to_dict() for one in told]))
        trials = list(_batches([_told(one) for one in changed]))
        parts = [*({"inputs": some} for some in inputs), *({"trials": some} for some in trials)]
        if len(inputs) == len(trials) == 1:  # nearly always: then both are one request, and one transaction
            parts = [{"inputs": inputs[0], "trials": trials[0]}]
        newest = after_seq
        for part in parts:
            newest = int(self._tell(lease, "inputs", {"after": newest, **part})["newest"])
        return newest

    def set_trial_runs(self, lease: Held, run_ids: Mapping[int, str]) -> None:
        told = [{"number": number, "run_id": run_id} for number, run_id in run_ids.items()]
        for begin in range(0, len(told), _BATCH):
            self._tell(lease, "trial-runs", {"trials": told[begin : begin + _BATCH]})

    def inputs(self, job_id: str) -> list[StoredInput]:
        found: list[StoredInput] = []
        after: int | None = 0
        while after is not None:
            page = self._http.get(job_path(job_id, "inputs"), {"after": after})
            found += [StoredInput.from_dict(one) for one in page["inputs"]]
            after = page["next"]
        return found

    def trials(self, job_id: str) -> list[TrialRecord]:
        return trials_of(self._http, job_id)

    def requests(self, job_id: str, after: int = 0) -> list[SweepRequest]:
        answer = self._http.get(job_path(job_id, "requests"), {"after": after})
        return [SweepRequest.from_dict(one) for one in answer["requests"]]

    def fetch_code(self, digest: str, into: Path) -> Path:
        """The package with this digest as ``<into>/<digest>.zip``; fetched where it is not there. Check it before use.

        Raises:
            NotFoundError: the server has no such package.
        """
        target = into / f"{digest}.zip"
        if target.exists():
            return target
        answer = self._http.send(Request("GET", f"/code/{in_path('code package', digest)}", outage=_CODE_SECONDS))
        write_atomically(target, answer.content)
        return target

    def append_log(self, lease: Held, rank: int, offset: int, data: bytes) -> int:
        """Add to the log of one rank what starts at its byte ``offset``; the offset to go on from.

        What the server has already is left out there. Where something is missing before ``offset``, nothing is kept,
        and the answer is smaller than it.
        """
        path, shown = f"{_lease(lease)}/logs/{rank}", _shown(lease)
        request = Request("POST", path, {"offset": offset}, shown, content=data, repeatable=True, answers=_GAP)
        response = self._http.send(request)
        answer = self._http.decoded(response)
        if "next" not in answer:  # 409 is also said of a lease that is lost
            raise self._http.refusal(response)
        return int(answer["next"])

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _job(self, lease: Held, verb: str, body: Mapping[str, Any], repeatable: bool = True) -> Job:
        return Job.from_dict(self._tell(lease, verb, body, repeatable))

    def _tell(self, lease: Held, verb: str, body: Mapping[str, Any], repeatable: bool = True) -> Any:
        path = f"{_lease(lease)}/{verb}"
        if "message" in body:  # a worker's last words may be megabytes
            body = {**body, "message": documents.text(body["message"], _LONGEST_NOTE)}
        return self._http.json(Request("POST", path, headers=_shown(lease), body=body, repeatable=repeatable))


def _lease(lease: Held) -> str:
    return f"/leases/{in_path('job', lease.job_id)}/{lease.epoch}"


def _batches(told: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """In their order, as many at once as a request may have."""
    batch, size = list[dict[str, Any]](), 0
    for one in told:
        more = len(documents.encode(one))
        if batch and (len(batch) == _BATCH or size + more > _BYTES):
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += more
    if batch:
        yield batch


def _told(trial: TrialRecord) -> dict[str, Any]:
    """The times of a trial are the ledger's own."""
    document = {name: value for name, value in trial.to_dict().items() if not name.endswith("_at")}
    return document | {"message": documents.text(trial.message, _LONGEST_NOTE)}


def _shown(lease: Held) -> dict[str, str]:
    return {"Lease-Secret": lease.secret}
