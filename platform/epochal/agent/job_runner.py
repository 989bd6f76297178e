"""Runs a job that an agent was leased, one attempt after the other, to its end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import IntEnum, auto
from functools import partial

from epochal.agent import job_folder
from epochal.agent.booking import Bookings
from epochal.agent.job_place import JobPlace
from epochal.agent.kept_secrets import keep_secret
from epochal.agent.logs import LogShipper
from epochal.agent.observer import Observer
from epochal.agent.outbox import Listener, Outbox
from epochal.agent.port import AWAY, JobSource, patiently
from epochal.agent.program import PackageProgram, TrainProgram, package, request_of
from epochal.agent.progress import ProgressLog
from epochal.agent.reporter import Reporter
from epochal.agent.retry_policy import QUICK_SECONDS, Action, Ending, Terms, decide, decision_on, pause_before_next
from epochal.agent.run_tracking import RunTracking, as_far_as_the_disk_allows
from epochal.agent.sweep_conductor import Sweep
from epochal.agent.sweep_journal import SweepJournal
from epochal.agent.sweep_program import SweepProgram
from epochal.agent.sweep_slots import Orders
from epochal.engine.connection import Connection
from epochal.engine.gang import Stop
from epochal.engine.payload import TrainPayload
from epochal.engine.place import Place
from epochal.engine.watchdog import limits_for
from epochal.errors import CapacityError, EpochalError
from epochal.files import write_atomically
from epochal.ledger import documents
from epochal.ledger.capacity import Group
from epochal.ledger.states import EventKind, Reason
from epochal.ledger.values import GRACE_SECONDS, Job, Lease
from epochal.redaction import named, trace
from epochal.settings import DEFAULT_RETENTION, Home, Retention
from epochal.spec.job import JobSpec, Retry
from epochal.tracking.desired_run import CLOSED_AS, artifacts_folder

_ROOM_SECONDS = 60.0
"""How long a job waits for room in the foreground where the spec sets no ``limits.max_pending``."""

NO_ROOM_SECONDS = 2.0
"""After which a job that an agent was given, and finds no room for, goes back to the queue."""

_LAST_LOGS_SECONDS = 30.0
"""How long the end of an attempt waits for a log store that does not answer."""

_FULL_SECONDS = 20.0
"""How long the end of a job in the foreground waits for its ledger, whose disk is full: nobody else looks after it."""

_LAST_WORD_SECONDS = 5.0

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Agent:
    """What runs jobs: a name, where its jobs come from, a cluster to run them on, and where their traces go.

    ``name`` is as leases have it. ``hands_back``: a job that finds no room, or that the agent has to leave, returns to
    the queue, where others find it, and its logs are shipped; in the foreground there is nobody else. ``lost_ray`` is
    told, before a job is handed back for it, what of Ray does not answer. ``groups`` are as they were looked at last.
    """

    name: str
    source: JobSource
    cluster: Connection
    home: Home
    tracking_uri: str
    retention: Retention = DEFAULT_RETENTION
    hands_back: bool = False
    bookings: Bookings = field(default_factory=lambda: Bookings(time.monotonic))
    lost_ray: Callable[[str], None] = lambda what: None
    groups: Callable[[], Sequence[Group]] = tuple


class Phase(IntEnum):
    """How a job stands with the agent that runs it. It only moves forward."""

    RUNNING = auto()
    STOPPING = auto()
    """It was asked to end."""
    LEAVING = auto()
    """The agent shuts down: what has not ended by itself goes back to the queue."""
    TIMED_OUT = auto()
    """``limits.max_duration`` is used up."""
    LOST = auto()
    """The lease is another's: nothing is told any more."""


class JobRunner:
    """Runs one leased job over as many attempts as its budgets allow: lease, outbox, bookings, logs, the desired run.

    What is done in an attempt is a program's part. Place and desired run are kept from one attempt to the next.
    """

    def __init__(self, agent: Agent, lease: Lease, observer: Observer) -> None:
        self._agent = agent
        self._source = agent.source
        self._observer = observer
        self._lease = lease
        self._folder = agent.home.job(lease.job_id)
        self._place = JobPlace(agent.cluster, agent.bookings, agent.groups, lease)
        self._stop = Stop()
        self._orders = Orders(self._place.book)
        self._outbox: Outbox | None = None
        self._spec: JobSpec | None = None
        self._log = ProgressLog(partial(agent.bookings.time.does, lease.job_id))
        self._quick_failures = 0
        self._phase, self._why_leaving = Phase.RUNNING, ""
        self._moving = threading.Lock()
        self.tracking: RunTracking | None = None
        self.reporter: Reporter | None = None
        self.ending = Ending(None)

    @property
    def held(self) -> Lease:
        """The lease of the newest attempt."""
        return self._lease

    @property
    def has_place(self) -> bool:
        """Whether it holds room on the cluster."""
        return self._place.held is not None

    @property
    def is_over(self) -> bool:
        """Whether the ledger knows that the newest attempt has ended."""
        return self._outbox is not None and self._outbox.is_over

    def run(self) -> Job | None:
        """Run the job until this agent is done with it; the job as it is then. None where it was taken away."""
        lease: Lease | None = self._lease
        job: Job | None = None
        try:
            while lease is not None:
                self._lease = lease
                self._log.does("setup")
                self._place.expect(lease)
                job = self._attempt(lease)
                lease = self._next()
        finally:
            self._place.release()
        return job

    def interrupt(self, grace: float | None) -> None:
        """Have the training save its state and end, as the job was asked to (``Stop.request``). From any thread."""
        self._enter(Phase.STOPPING, grace)

    def leave(self, why: str) -> None:
        """Have the training save its state and end; the job then queues again. Safe to call from another thread."""
        self._why_leaving = why
        self._enter(Phase.LEAVING)

    def abandon(self, why: str, seconds: float) -> bool:
        """Tell the ledger that the attempt is over, whatever the training does; whether that worked in ``seconds``."""
        outbox = self._outbox
        if outbox is None:
            return True
        self._move_to(Phase.LEAVING)
        self._end(outbox, self._lease, Ending(Reason.INTERRUPTED, why, lost=True))
        return outbox.wait(seconds) is not None or self._phase is Phase.LOST

    def settle(self, job: Job) -> RunTracking | None:
        """Write down how the job stands, in the desired run; what can be closed now. None where there is no run."""
        if job.state in CLOSED_AS and self._spec is not None:
            with as_far_as_the_disk_allows(self._folder):
                self._tracked(self._spec).settle(job)
        return self.tracking

    def _attempt(self, lease: Lease) -> Job | None:
        """One attempt, and what the ledger made of its end."""
        self._observer.state(lease.job)
        self._orders.workers = lease.job.granted
        outbox = self._outbox = Outbox(
            self._source,
            lease,
            Listener(self._observer.state, self.interrupt, self._taken, self._orders.heard),
            patience=None if self._agent.hands_back else _FULL_SECONDS,
        )
        try:
            return self._see_through(lease, outbox)
        except BaseException as error:
            # Nobody else ends the attempt: the outbox renews its lease until it is told of the end.
            self._place.release()
            why = f"the agent failed: {named(error)}"
            self._end(outbox, lease, Ending(Reason.INTERRUPTED, why, lost=True).redacted())
            outbox.wait(_LAST_WORD_SECONDS)
            raise

    def _see_through(self, lease: Lease, outbox: Outbox) -> Job | None:
        begun = time.monotonic()
        logs = LogShipper(self._source, lease, self._folder)
        if self._agent.hands_back:
            keep_secret(self._folder, lease)
            logs.start()
        try:
            self.ending = self._outcome(lease, outbox).redacted(self._spec.secrets if self._spec else ())
            self._log.does("export")
            if self.ending.result.get("weights") and self._place.held is not None and self.reporter is not None:
                self._package(lease, self._place.held, self.reporter)
        finally:
            logs.close()
        if self._agent.hands_back:  # before the end, at which those who follow the logs stop
            outbox.tell(partial(logs.finish_by, time.monotonic() + _LAST_LOGS_SECONDS))
        self._pace(lease, outbox, time.monotonic() - begun)
        self._end(outbox, lease, self.ending)
        if not self.ending.failed:  # else the next attempt has the same room
            self._place.release()
        return outbox.wait()

    def _package(self, lease: Lease, place: Place, reporter: Reporter) -> None:
        """Whatever comes of it, the job has succeeded. The workers' room is given back first."""
        if not self._agent.hands_back:
            self._agent.cluster.keep_warm(0)  # nothing follows the only job: new workers would slow the packaging down
        reporter.packaging()
        program = PackageProgram(self.ending.result.get("spec", lease.job.spec), self._folder, lease.epoch)
        with as_far_as_the_disk_allows(self._folder):
            reporter.packaged(package(place, program, reporter, self._stop, self._place.vacate))

    def _pace(self, lease: Lease, outbox: Outbox, lasted: float) -> None:
        """Wait where attempts fail at once, one after the other: before anyone hears that this one has ended."""
        self._quick_failures = self._quick_failures + 1 if self.ending.failed and lasted < QUICK_SECONDS else 0
        if not (pause := pause_before_next(self._quick_failures)) or not self._is_tried_again(lease):
            return
        why = f"{self._quick_failures} attempts in a row failed at once ({self.ending.message}): waiting {pause:g} s"
        outbox.tell(partial(self._source.note, lease, EventKind.WAITING, why, key=f"waiting-{lease.epoch}"))
        deadline = time.monotonic() + pause
        while self._phase is Phase.RUNNING and time.monotonic() < deadline:
            time.sleep(0.05)

    def _is_tried_again(self, lease: Lease) -> bool:
        with suppress(*AWAY):  # it is to stop
            ask = partial(decision_on, self._source, lease, self.ending, self._terms())
            return patiently(ask, self._is_ending).action is Action.RETRY
        return False

    def _outcome(self, lease: Lease, outbox: Outbox) -> Ending:
        try:
            self._spec = job_folder.spec_of(lease.job)
            with _time_limit(self._spec, lease.job, partial(self._enter, Phase.TIMED_OUT, GRACE_SECONDS)):
                return self._explained(self._train(lease, self._spec, outbox))
        except CapacityError as error:
            if self._is_ending():
                return self._explained(Ending(None))
            return Ending(Reason.PENDING_TIMEOUT, f"{error}; {error.hint}" if error.hint else str(error))
        except Exception as error:
            if not self._agent.hands_back and not isinstance(error, OSError):
                raise  # the command tells of it, of a bug with its traceback
            gone = self._is_ending() and isinstance(error, AWAY)
            return self._explained(Ending(None) if gone else self._broken(error))

    def _broken(self, error: Exception) -> Ending:
        """An attempt that failed before or beside its training: the job's own fault where we know what it is."""
        text, traced = named(error), documents.text(trace())
        self._place.release()
        if isinstance(error, EpochalError) and not isinstance(error, AWAY):
            return Ending(Reason.USER_ERROR, f"{text}; {error.hint}" if error.hint else text, traced)
        if isinstance(error, OSError):  # no disk space, for instance
            return Ending(Reason.INFRASTRUCTURE, text, traced)
        _logger.error("%s: the agent failed\n%s", self._lease.job_id, traced)
        return Ending(Reason.INFRASTRUCTURE, f"the agent failed: {text}", traced)

    def _train(self, lease: Lease, spec: JobSpec, outbox: Outbox) -> Ending:
        job = lease.job
        job_folder.ensure(self._folder, job, spec)
        program = self._program(lease, spec)
        place = self._placed(lease, spec)
        if self._is_ending():
            return Ending(None)
        tracking = self._tracked(spec)
        tracking.update(tags={"epochal.attempts": str(lease.epoch)})
        self.reporter = Reporter(self._source, lease, outbox, tracking, self._observer, self._log)
        return program.run(place, self.reporter, self._stop)

    def _program(self, lease: Lease, spec: JobSpec) -> TrainProgram | SweepProgram:
        job, limit = lease.job, spec.limits.no_progress
        stored = patiently(partial(job_folder.payload_spec, self._source, self._agent.home, job), self._is_ending)
        payload = TrainPayload(stored, job_folder.origin_of(job).folder)
        limits = limits_for(limit.seconds if limit else None)
        if spec.sweep is None:
            return TrainProgram(payload, self._folder, lease.epoch, limits)
        journal = SweepJournal(self._source, lease, self._folder, self._is_ending)
        return SweepProgram(Sweep(spec, payload, self._folder, journal, self._orders), lease.epoch, limits)

    def _placed(self, lease: Lease, spec: JobSpec) -> Place:
        limit = spec.limits.max_pending
        seconds = NO_ROOM_SECONDS if self._agent.hands_back else limit.seconds if limit else _ROOM_SECONDS
        code = partial(job_folder.package_of, self._source, self._agent.home, lease.job)
        return self._place.reserve(
            lambda: request_of(lease.job, spec, patiently(code, self._is_ending)), seconds, self._is_ending
        )

    def _tracked(self, spec: JobSpec) -> RunTracking:
        if self.tracking is None:
            uri = self._agent.tracking_uri
            self.tracking = RunTracking(uri, self._folder, self._lease.job_id, spec, self._observer.notice)
        return self.tracking

    def _explained(self, ending: Ending) -> Ending:
        """The ending with what this agent knows about it."""
        if ending.reason is Reason.INFRASTRUCTURE and self._agent.hands_back and (lost := self._agent.cluster.lost()):
            self._agent.lost_ray(lost)
            return Ending(Reason.INTERRUPTED, f"Ray was lost: {lost} does not answer", lost=True)
        if ending.failed and self._phase in (Phase.STOPPING, Phase.TIMED_OUT):
            told = f"{ending.message}; {job_folder.saved(self._folder, self.reporter.step if self.reporter else 0)}"
            ending = replace(ending, reason=None, message=told)
        if ending.reason is None and self._phase is Phase.TIMED_OUT:
            limit = self._spec.limits.max_duration if self._spec else ""
            told = "; ".join(filter(None, (f"limits.max_duration of {limit} is used up", ending.message)))
            return replace(ending, reason=Reason.TIMEOUT, message=told)
        if ending.reason is None and self._phase is Phase.LEAVING:
            return Ending(Reason.INTERRUPTED, self._why_leaving, result=ending.result)
        return ending

    def _is_ending(self) -> bool:
        return self._phase is not Phase.RUNNING

    def _end(self, outbox: Outbox, lease: Lease, ending: Ending) -> None:
        if ending.traceback:
            with as_far_as_the_disk_allows(self._folder):
                write_atomically(artifacts_folder(self._folder) / "failure.txt", ending.traceback)
        outbox.end(lambda: decide(self._source, lease, ending, self._terms()))

    def _terms(self) -> Terms:
        return Terms(self._spec.retry if self._spec else Retry(), self._agent.hands_back, self._phase is Phase.LEAVING)

    def _next(self) -> Lease | None:
        """The lease of the next attempt, where the job is tried again."""
        lease = self._outbox.next_lease if self._outbox else None
        if lease is not None:
            reason, message = self.ending.reason, self.ending.message
            self._observer.notice(f"attempt {lease.epoch - 1} failed ({reason}): {message}; trying again")
        return lease

    def _enter(self, phase: Phase, grace: float | None = None) -> None:
        """Have the training save its state and end."""
        self._move_to(phase)
        self._stop.request(grace)

    def _move_to(self, phase: Phase) -> None:
        with self._moving:  # the outbox, a timer and the service may at once, each in a thread of its own
            self._phase = max(self._phase, phase)

    def _taken(self, error: EpochalError) -> None:
        self._move_to(Phase.LOST)
        self._observer.notice(f"{error}: its workers are ended")
        self._stop.kill()


@contextmanager
def _time_limit(spec: JobSpec, job: Job, expired: Callable[[], None]) -> Iterator[None]:
    """Within the ``with`` block ``expired`` is called once the job's running time is used up."""
    limit = spec.limits.max_duration
    if limit is None:
        yield
        return
    timer = threading.Timer(max(0.0, limit.seconds - job.ran_seconds), expired)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
