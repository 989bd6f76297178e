"""Follows submitted jobs on a terminal: state, why it waits, progress, and what the workers print."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from epochal.cli import render
from epochal.cli.job_view import bar, best, why_lines
from epochal.cli.log_lines import BEGUN_SECONDS, Line, Lines
from epochal.cli.progress import QuietDisplay
from epochal.client.following import LogChunk
from epochal.errors import ConflictError, NotFoundError, UnreachableError
from epochal.ledger.states import EventKind, JobState, Reason
from epochal.training.control import Progress

if TYPE_CHECKING:
    from epochal.client import Client
    from epochal.ledger.values import Event, FullJob, Job

    _News = Event | LogChunk | Exception | threading.Thread

_LOOK_SECONDS = 2.0
"""How often progress is asked for, of which agents tell as often; changes of state and logs come by themselves."""
_WHY_AFTER, _WHY_EVERY = 3.0, 15.0
"""Seconds in the queue after which the reason is asked for, and how often again."""
_LAST_LOGS_SECONDS = 10.0
"""How long the last lines of a job that has ended are waited for."""


class Follower:
    """Tells ``display`` what happens to one job until it has ended, or waits for a person whom nobody has asked.

    Events and logs come over connections of their own, each read by a thread; only progress has to be asked for.
    """

    def __init__(self, client: Client, job_id: str, display: QuietDisplay, with_logs: bool = True) -> None:
        self._client = client
        self._job_id = job_id
        self._display = display
        self._with_logs = with_logs
        self._lines = Lines()
        self._news: queue.SimpleQueue[_News] = queue.SimpleQueue()
        self._told_why = ""
        self._ask_why_at = time.monotonic() + _WHY_AFTER
        self._look_at = 0.0
        self._told_progress: Mapping[str, Any] | None = None
        self._given_up = False

    def follow(self) -> Job:
        """The job once it has ended, or the ledger has paused it; one that a user has paused is waited for.

        Goes on over restarts of the server: the next events come when it answers again.

        Raises:
            UnreachableError: it did not answer for minutes.
        """
        job, until = self._client.job(self._job_id), math.inf
        events = self._listen(self._client.events(self._job_id, follow=True))
        open_ends = {events}
        if self._with_logs:
            open_ends.add(self._listen(self._client.logs(self._job_id, follow=True)))
        while open_ends and time.monotonic() < until:
            with suppress(queue.Empty):
                item = self._news.get(timeout=BEGUN_SECONDS / 2)  # a line that has begun is no news, and comes due
                if isinstance(item, Exception):
                    raise item
                if isinstance(item, threading.Thread):
                    open_ends.discard(item)
                    # Logs go by another way than the end of the job, and may come after it.
                    until = time.monotonic() + _LAST_LOGS_SECONDS if item is events else until
                elif isinstance(item, LogChunk):
                    self._show(self._lines.of(item))
                else:
                    self._tell(job, item)
                    self._look_at = 0.0
            for _, rank, text in self._lines.begun(BEGUN_SECONDS):
                self._display.log(rank, "", render.printable(text))
            with suppress(UnreachableError):
                job = self._looked(job)
            if self._given_up and job.state is JobState.PAUSED:
                break
        self._show(self._lines.rest())
        # The last look may be older than the end, or have failed.
        return job if job.state.is_terminal else self._client.job(self._job_id)

    def _listen(self, source: Iterator[Event | LogChunk]) -> threading.Thread:
        """Have a thread put what ``source`` gives among the news, and itself at the end."""

        def listen() -> None:
            try:
                for item in source:
                    self._news.put(item)
            except Exception as error:  # raised where the news are read: a thread has nobody to tell
                self._news.put(error)
            self._news.put(thread)

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        return thread

    def _looked(self, job: FullJob) -> FullJob:
        """The job as it is now, where an event has told of it or it may have got on."""
        # Once for all that has come: many events are one change to whoever looks.
        if self._news.empty() and (not self._look_at or (job.state.is_active and time.monotonic() >= self._look_at)):
            job = self._client.job(self._job_id)
            self._look_at = time.monotonic() + _LOOK_SECONDS
            if job.progress and job.progress != self._told_progress:
                self._show_progress(job.progress)
        if job.state is JobState.QUEUED:
            self._say_why(job)
        return job

    def _show_progress(self, told: Mapping[str, Any]) -> None:
        """Of a sweep a line for each new best."""
        before, self._told_progress = self._told_progress, told
        if (progress := progress_of(told)) is not None:
            self._display.progress(progress)
        elif best(told) != best(before):
            self._display.notice(render.printable(f"{bar(told)}; best {best(told)}"))

    def _tell(self, job: Job, event: Event) -> None:
        """One line for a change of state, and the message where a person should read why."""
        if event.kind in (EventKind.NOTED, EventKind.TRACKING):
            self._display.notice(render.printable(event.message))
        if event.previous is event.state:
            return
        self._display.state(replace(job, state=event.state))
        if event.message and not event.state.is_terminal:
            self._display.notice(render.printable(event.message))
        self._given_up = event.state is JobState.PAUSED and event.reason is not Reason.STOPPED_BY_USER
        if event.state is JobState.PAUSED:
            self._display.notice(f"it goes on with `epochal resume {job.id}`")

    def _say_why(self, job: Job) -> None:
        """Why it still waits, when that is something new."""
        if time.monotonic() < self._ask_why_at:
            return
        self._ask_why_at = time.monotonic() + _WHY_EVERY
        with suppress(ConflictError, NotFoundError):
            why = "; ".join(why_lines(self._client.why(job.id)))
            if why != self._told_why:
                self._told_why = why
                self._display.notice(render.printable(why))

    def _show(self, lines: Iterable[Line]) -> None:
        for _, rank, text in lines:
            self._display.log(rank, render.printable(text))


def progress_of(stored: Mapping[str, Any]) -> Progress | None:
    """The progress that an agent told; None where this version does not understand it."""
    known = {field.name: stored[field.name] for field in fields(Progress) if field.name in stored}
    try:
        known["metrics"] = {name: float(value) for name, value in known.get("metrics", {}).items()}
        return Progress(**known)
    except (AttributeError, TypeError, ValueError):
        return None
