"""The client's verbs on jobs: look, follow, stop, pause, resume, retry."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from itertools import chain
from typing import Any, TypeVar

from epochal.client.following import EventPage, LogChunk, LogFilter, LogPage
from epochal.client.http import MAX_WAIT, Http, Request
from epochal.client.plain import seconds_of
from epochal.errors import UnreachableError, UsageError
from epochal.ledger.states import JobState
from epochal.ledger.values import Attempt, Event, FullJob, Job, QueueEntry, Why
from epochal.names import checked_name, in_path
from epochal.tracking.pages import page_of

LONGEST_QUEUE = 10_000
_PAGE = 100
_MOMENT = 0.1
"""Seconds: not 0, which ``_patiently`` takes for nobody who follows. What waits for events is the stream."""
_OUTAGE_SECONDS = 600.0
"""How long following goes on asking a server that does not answer."""


Entry = TypeVar("Entry")

Seconds = float | timedelta


class Listed(list[Entry]):
    """The first of a list; ``total`` is how many there are of all."""

    total: int = 0


class JobCalls:
    """See ``Client``. A job is named by its id, a unique beginning of it, or its name (the newest of that name)."""

    _http: Http
    _notice: Callable[[str], None]
    _away: threading.Lock
    """Held by a thread that waits for the server to answer again."""

    def job(self, ref: str) -> FullJob:
        """One job, with its spec.

        Raises:
            NotFoundError: there is none; the hint names the closest.
            ConflictError: the beginning fits several.
        """
        return FullJob.from_dict(self._http.get(job_path(ref)))

    def run_page(self, ref: str) -> str | None:
        """The address of the job's run in MLflow, for a browser; None where it has no run yet, or MLflow no address.

        Raises:
            NotFoundError, ConflictError: as ``job``.
        """
        job = self.job(ref)
        return page_of(job.tracking_uri, job.run_id, job.experiment_id)

    def jobs(
        self,
        *,
        states: JobState | str | Collection[JobState | str] = (),
        name: str | None = None,
        user: str | None = None,
        queue: str | None = None,
        limit: int = _PAGE,
    ) -> Listed[Job]:
        """Jobs, newest first, at most ``limit``; how many there are is its ``total``."""
        wanted = [_state(state) for state in ([states] if isinstance(states, str) else states)]
        for kind, asked in (("job", name), ("user", user), ("queue", queue)):
            if asked is not None:
                checked_name(kind, asked)
        query: dict[str, Any] = {"state": wanted or None, "name": name, "user": user, "queue": queue}
        found: Listed[Job] = Listed()
        before: int | None = None
        while len(found) < limit:
            page = self._http.get("/jobs", {**query, "limit": min(_PAGE, limit - len(found)), "before": before})
            found += [Job.from_dict(job) for job in page["jobs"]]
            # An older server does not count them.
            found.total = page.get("total") or max(found.total, len(found))
            before = page["next"]
            if before is None:
                break
        return found

    def attempts(self, ref: str) -> list[Attempt]:
        """The attempts of a job, oldest first."""
        return [Attempt.from_dict(attempt) for attempt in self._http.get(job_path(ref, "attempts"))["attempts"]]

    def events(self, ref: str, *, after: int = 0, follow: bool = False) -> Iterator[Event]:
        """What happened to a job, oldest first, from the one following the id ``after``.

        With ``follow``, goes on until the job has ended, over restarts of the server and breaks in the network.
        """
        # By its id, as a name is of its newest job: another may be submitted under it meanwhile. So in ``logs``.
        identity = self.job(ref).id if follow else ref
        while True:
            # Where a stream was broken off, this is what waits for the server, and says that it is away.
            first = self.event_page(identity, after, _MOMENT if follow else 0.0)
            more = self._stream(identity, first.last(after)) if follow and not first.done else ()
            for page in chain([first], more):
                yield from page.events
                after = page.last(after)
            if page.done or not (follow or page.events):
                return

    def _stream(self, identity: str, after: int) -> Iterator[EventPage]:
        """What is told as it happens, until the job or the connection ends."""
        request = Request("GET", job_path(identity, "events", "stream"), {"after": after}, wait=MAX_WAIT)
        with suppress(UnreachableError):
            yield from (EventPage.from_dict(document) for document in self._http.documents(request))

    def event_page(self, ref: str, after: int = 0, wait: float = 0.0) -> EventPage:
        """The events following ``after``; where there are none, those that come within ``wait`` seconds."""
        return EventPage.from_dict(self._patiently(job_path(ref, "events"), {"after": after}, wait))

    def logs(
        self,
        ref: str,
        *,
        rank: int | None = None,
        attempt: int | None = None,
        tail: int | None = None,
        follow: bool = False,
    ) -> Iterator[LogChunk]:
        """What the workers print, in the order it was received; of all ranks and attempts where none is named.

        Args:
            tail: only the last lines of each log.
            follow: go on until the job has ended, over restarts of the server and breaks in the network.
        """
        identity = self.job(ref).id if follow else ref
        chosen, cursor = LogFilter(rank, attempt, tail), ""
        while True:
            page = self.log_page(identity, chosen, cursor, MAX_WAIT if follow else 0.0)
            yield from page.chunks
            if page.done or not (follow or page.chunks):
                return
            cursor = page.cursor

    def log_page(self, ref: str, chosen: LogFilter | None = None, cursor: str = "", wait: float = 0.0) -> LogPage:
        """The logs from ``cursor`` on; where there are none, those that come within ``wait`` seconds."""
        query = (chosen or LogFilter()).query(cursor)
        return LogPage.from_dict(self._patiently(job_path(ref, "logs"), query, wait))

    def wait(self, ref: str, timeout: Seconds | None = None, until: Collection[JobState] = ()) -> Job:
        """The job once it has ended, or is in a state of ``until``; as it is after ``timeout`` seconds, if not before.

        A paused job has not ended.
        """
        job, after = self.job(ref), 0
        deadline = time.monotonic() + seconds_of(timeout) if timeout is not None else float("inf")
        while not (job.state.is_terminal or job.state in until) and (left := deadline - time.monotonic()) > 0:
            page = self.event_page(job.id, after, min(MAX_WAIT, left))
            after = page.last(after)
            if page.events or page.done:
                job = self.job(job.id)
        return job

    def stop(self, ref: str, message: str = "", grace: Seconds | None = None) -> Job:
        """End a job for good. One that trains is STOPPING until its workers have ended, which save their state first.

        Args:
            grace: seconds after which the workers are killed where they have not begun to save, 0 at once; default: the
                server's, 30. Asked again, the least counts.

        Raises:
            ConflictError: it has already succeeded or failed.
        """
        return self._ask(ref, "stop", message, grace, repeatable=True)

    def pause(self, ref: str, message: str = "", grace: Seconds | None = None) -> Job:
        """Have a job save its state and leave the cluster, or the queue, until ``resume``; ``grace`` as for ``stop``.

        Raises:
            ConflictError: it has ended, or is being stopped.
        """
        return self._ask(ref, "pause", message, grace, repeatable=True)

    def resume(self, ref: str, message: str = "") -> Job:
        """Queue a PAUSED job again; it goes on from its newest checkpoint.

        Raises:
            ConflictError: it is not PAUSED.
        """
        return self._ask(ref, "resume", message)

    def retry(self, ref: str, message: str = "") -> FullJob:
        """Submit a job that has ended once more, as a new job; the new job.

        Raises:
            ConflictError: it has not ended.
        """
        # Not repeatable, as each makes a job. Nor is ``resume``: a second time the job is not PAUSED any more.
        return FullJob.from_dict(self._http.post(job_path(ref, "retry"), {"message": message}))

    def why(self, ref: str) -> Why:
        """Why a job waits, and the smallest change that would start it."""
        return Why.from_dict(self._http.get(job_path(ref, "why")))

    def queue(self, limit: int = 1000) -> Listed[QueueEntry]:
        """The jobs that wait, in the order of their turn, each with its position and why it waits; at most ``limit``,
        and 10,000. How many wait is its ``total``.
        """
        answer = self._http.get("/queue", {"limit": min(limit, LONGEST_QUEUE)})
        found = Listed(QueueEntry.from_dict(entry) for entry in answer["queue"])
        found.total = answer.get("total", len(found))  # an older server's has none
        return found

    def _ask(self, ref: str, verb: str, message: str, grace: Seconds | None = None, repeatable: bool = False) -> Job:
        body = {"message": message} | ({} if grace is None else {"grace": seconds_of(grace)})
        return Job.from_dict(self._http.post(job_path(ref, verb), body, repeatable))

    def _patiently(self, path: str, query: dict[str, Any], wait: float) -> Any:
        """A question that is asked again and again while the server is away, where somebody follows (``wait``)."""
        request = Request("GET", path, query, wait=wait)
        if not wait:
            return self._http.json(request)
        with suppress(UnreachableError):  # a server that restarts is back before anybody has to be told
            return self._http.json(request)
        says = self._away.acquire(blocking=False)  # one of the threads that notice it
        try:
            if says:
                minutes = f"{_OUTAGE_SECONDS / 60:.0f} minutes"
                self._notice(f"{self._http.server} does not answer; trying again for {minutes}")
            answer = self._http.json(replace(request, outage=_OUTAGE_SECONDS))
            if says:
                self._notice(f"{self._http.server} answers again")
            return answer
        finally:
            if says:
                self._away.release()


def _state(name: str) -> str:
    known = [state.value for state in JobState]
    if str(name).upper() not in known:
        raise UsageError(f"no job can be {str(name)!r}", f"one of {', '.join(known)}")
    return str(name).upper()


def job_path(ref: str, *parts: str) -> str:
    """Of what the server says about a job."""
    return "/".join(("/jobs", in_path("job", ref), *parts))
