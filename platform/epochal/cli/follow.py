"""Follows submitted jobs on a terminal: state, why it waits, progress, and what the workers print."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from epochal.cli import render
from epochal.cli.job_view import why_lines
from epochal.cli.log_lines import BEGUN_SECONDS, Line, Lines
from epochal.cli.progress import QuietDisplay
from epochal.errors import ConflictError, NotFoundError, UnreachableError
from epochal.ledger.states import EventKind, JobState
from epochal.training.control import Progress

if TYPE_CHECKING:
    from epochal.client import Client
    from epochal.ledger.values import Event, Job

_LOOK_SECONDS = 1.0
"""How often progress and logs are asked for; a change of state is told at once."""
_WHY_AFTER, _WHY_EVERY = 3.0, 15.0
"""Seconds in the queue after which the reason is asked for, and how often again."""
_LAST_LOGS_SECONDS = 10.0
"""How long the last lines of a job that has ended are waited for."""


class Follower:
    """Tells ``display`` what happens to one job until it has ended."""

    def __init__(self, client: Client, job_id: str, display: QuietDisplay, with_logs: bool = True) -> None:
        self._client = client
        self._job_id = job_id
        self._display = display
        self._lines = Lines()
        self._cursor = ""
        self._logs_done = not with_logs
        self._told_why = ""
        self._ask_why_at = time.monotonic() + _WHY_AFTER
        self._told_progress: Mapping[str, Any] | None = None

    def follow(self) -> Job:
        """The job once it has ended. Goes on over restarts of the server: the next events come when it answers again.

        Raises:
            UnreachableError: it did not answer for minutes.
        """
        job, after = self._client.job(self._job_id), 0
        while True:
            page = self._client.event_page(self._job_id, after, _LOOK_SECONDS)
            after = page.last(after)
            for event in page.events:
                self._tell(job, event)
            with suppress(UnreachableError):
                job = self._client.job(self._job_id)
                self._look(job)
            if page.done and job.state.is_terminal:
                self._last_logs()
                return job

    def _tell(self, job: Job, event: Event) -> None:
        """One line for a change of state, and the message where a person should read why."""
        if event.kind == EventKind.TRACKING:
            self._display.notice(render.printable(event.message))
        if event.previous is not event.state:
            self._display.state(replace(job, state=event.state))
            if event.message and not event.state.is_terminal:
                self._display.notice(render.printable(event.message))
        if event.state is JobState.PAUSED and event.previous is not JobState.PAUSED:
            self._display.notice(f"it goes on with `epochal resume {job.id}`")

    def _look(self, job: Job) -> None:
        if job.state is JobState.QUEUED:
            self._say_why(job)
        if job.progress and job.progress != self._told_progress and (told := progress_of(job.progress)):
            self._told_progress = job.progress
            self._display.progress(told)
        self._print_logs()

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

    def _print_logs(self, wait: float = 0.0) -> None:
        while not self._logs_done:
            page = self._client.log_page(self._job_id, None, self._cursor, wait)
            self._cursor, self._logs_done = page.cursor, page.done
            for chunk in page.chunks:
                self._show(self._lines.of(chunk))
            if not page.chunks:
                break
        for _, rank, text in self._lines.begun(BEGUN_SECONDS):
            self._display.log(rank, "", render.printable(text))

    def _last_logs(self) -> None:
        until = time.monotonic() + _LAST_LOGS_SECONDS
        while not self._logs_done and time.monotonic() < until:
            self._print_logs(_LOOK_SECONDS)
        self._show(self._lines.rest())

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
