"""The agent as a service: leases jobs for as long as it lives, and carries as many at once as there is room for."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from epochal import __version__
from epochal.agent.booking import Bookings
from epochal.agent.heartbeat import Heartbeat, Identity
from epochal.agent.housekeeping import Housekeeper
from epochal.agent.job_folder import origin_of
from epochal.agent.job_runner import Agent, JobRunner
from epochal.agent.observer import SilentObserver
from epochal.agent.ray_watch import RayWatch
from epochal.agent.run_closer import RunCloser
from epochal.agent.worker_groups import Scaler, WorkerGroups
from epochal.backoff import pause_after
from epochal.engine.orphans import reap
from epochal.engine.warm import clock_is_off, not_kept
from epochal.errors import EpochalError, UnreachableError
from epochal.ledger.states import Reason
from epochal.ledger.values import LEASE_SECONDS, Job, Lease
from epochal.tracking.desired_run import CLOSED_AS

_POLL_SECONDS = 25.0
_LAST_LEASE_SECONDS = 1.0
"""For the answer to the last poll: that of an agent that has told that it leaves is no lease, and is not waited for."""

_TICK_SECONDS = 0.1
_TELL_SECONDS = 20.0
_SAVE_SECONDS = 15.0
_CLOSE_SECONDS = 10.0
_LONGEST_REST_SECONDS = 30.0

_SHUT_DOWN = "the agent was shut down"

_logger = logging.getLogger(__name__)


class AgentService:
    """Carries jobs until drained. ``agent.name`` is its name over restarts; leases get an incarnation beside it."""

    def __init__(
        self,
        agent: Agent,
        warm_per_node: int | None = None,
        groups: WorkerGroups | None = None,
        heard: Path | None = None,
    ) -> None:
        """``groups``: those of its cluster, which it has grow and shrink. ``heard``: see ``Heartbeat``."""
        self._identity = Identity(agent.name, uuid.uuid4().hex[:12])
        bookings = Bookings(time.monotonic, self._beat_soon)
        self._agent = replace(
            agent,
            name=str(self._identity),
            hands_back=True,
            bookings=bookings,
            lost_ray=self._ray_is_lost,
            groups=lambda: self._scaler.told if self._scaler is not None else (),
        )
        self._lost = ""
        self._warm = warm_per_node
        self._heartbeat = Heartbeat(self._identity, self._agent, self._detail, heard)
        self._run_closer = RunCloser(agent.source, agent.tracking_uri, self._is_quiet)
        self._housekeeper = Housekeeper(self._agent, self._held, self._code)
        self._scaler = Scaler(self._agent, groups) if groups is not None else None
        self._runners: dict[tuple[str, int], JobRunner] = {}
        self._lock = threading.Lock()
        self._leaving = False
        self._asked_to_leave = False
        self._in_vain = 0
        self._rests_until = 0.0
        self._leasing = threading.Thread(target=self._lease_jobs, name="leasing", daemon=True)

    def drain(self) -> None:
        """Have ``run`` hand everything back and return. From a signal handler too: nothing here takes a lock."""
        self._asked_to_leave = True

    def run(self) -> None:
        """Carry jobs until ``drain``; then every gang has saved its state, and its job queues again.

        Raises:
            UnreachableError: Ray was lost; all jobs were handed back.
            ConflictError: another process has this agent's name now.
            AuthError: the source refuses this agent.
        """
        for name in reap():
            _logger.warning("removed the placement group %s: its driver is gone", name)
        self._agent.cluster.keep_warm(self._warm)
        try:
            self._watch()
        finally:
            self._heartbeat.close()
            self._housekeeper.close()
            if self._scaler is not None:
                self._scaler.close()

    def _watch(self) -> None:
        watch = RayWatch(self._agent.cluster.lost, time.monotonic)
        while not self._asked_to_leave:
            time.sleep(_TICK_SECONDS)
            self._start_when_heard()
            if self._heartbeat.replaced is not None:
                self._give_up("another agent has this one's name now", 0.0)
                raise self._heartbeat.replaced
            if lost := self._lost or watch.verdict():
                self._give_up(f"Ray was lost: {lost} does not answer", _SAVE_SECONDS)
                raise UnreachableError(f"Ray was lost: {lost} does not answer", "start the agent again")
        self._hand_everything_back()

    def _start_when_heard(self) -> None:
        """Begin to lease once the source knows this agent, and what it has."""
        if self._leasing.ident is not None or not self._heartbeat.start():
            return
        for thread in (self._run_closer, self._housekeeper, self._leasing):
            thread.start()
        if self._scaler is not None:
            self._scaler.start()
        _logger.info("agent %s leases jobs", self._identity.name)

    def _ray_is_lost(self, what: str) -> None:
        """A job has failed for it: take no other one, least of all this one again, and give up."""
        self._leaving = True
        self._heartbeat.leave()
        self._lost = what  # last: `_watch` gives up once it sees it

    def _hand_everything_back(self) -> None:
        _logger.info("draining: %d jobs save their state and go back to the queue", len(self._runners))
        self._leave(_SHUT_DOWN)
        self._heartbeat.leave()
        if self._leasing.ident is not None:
            self._leasing.join(_LAST_LEASE_SECONDS)
        # Saving takes as long as it takes: what is limited is telling the ledger, once no workers are left.
        silent_since = time.monotonic()
        while self._runners and time.monotonic() - silent_since < _TELL_SECONDS:
            if any(runner.has_place for runner in self._all()):
                silent_since = time.monotonic()
            time.sleep(_TICK_SECONDS / 4)
        self._run_closer.wait(_CLOSE_SECONDS)

    def _give_up(self, why: str, seconds: float) -> None:
        """Nothing may be asked of Ray any more: what can still save its state gets ``seconds`` for it."""
        _logger.error("%s; handing %d jobs back", why, len(self._runners))
        self._leave(why)
        deadline = time.monotonic() + seconds
        while self._saving() and time.monotonic() < deadline:
            time.sleep(_TICK_SECONDS / 4)
        deadline = time.monotonic() + _TELL_SECONDS
        for runner in self._all():
            runner.abandon(why, max(0.0, deadline - time.monotonic()))

    def _saving(self) -> bool:
        """Whether there are workers that may yet save their state: without the GCS they can, without the raylet not."""
        alive = not self._agent.cluster.raylet_is_gone()
        return alive and not all(runner.is_over for runner in self._all())

    def _leave(self, why: str) -> None:
        self._leaving = True
        for runner in self._all():
            runner.leave(why)

    def _lease_jobs(self) -> None:
        failures, secret = 0, secrets.token_urlsafe(32)
        while not self._leaving:
            if self._rests_until > time.monotonic():  # jobs found no room just now, or failed of this cluster
                self._sleep(_TICK_SECONDS)
                continue
            begun = time.monotonic()
            try:
                # The same one until an answer comes: that which got lost may have been a lease.
                lease = self._agent.source.lease(self._agent.name, LEASE_SECONDS, wait=_POLL_SECONDS, secret=secret)
                secret = secrets.token_urlsafe(32)
                if lease is not None:
                    self._begin(lease)
                failures = 0
            except EpochalError as error:
                failures += 1
                if failures == 1:
                    _logger.warning("no job can be leased: %s", error)
            except Exception:  # whatever it is: without this thread the agent would carry nothing any more
                failures += 1
                if failures == 1:
                    _logger.exception("no job can be leased")
            if failures:
                self._sleep(pause_after(failures))
                continue
            if lease is None and time.monotonic() - begun < _TICK_SECONDS:
                self._sleep(_TICK_SECONDS)  # of a source that does not wait

    def _sleep(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._leaving and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, _TICK_SECONDS))

    def _begin(self, lease: Lease) -> None:
        runner = JobRunner(self._agent, lease, _Notices(lease.job_id))
        key = (lease.job_id, lease.epoch)
        with self._lock:
            self._runners[key] = runner
        # Now that it can be found: `_leave` may just have gone over the others.
        if self._leaving:
            runner.leave(_SHUT_DOWN)
        try:
            threading.Thread(target=self._carry, args=(key, runner), name=f"job-{lease.job_id}", daemon=True).start()
        except RuntimeError:  # the system has no thread left: the lease runs out, and the job queues again
            with self._lock:
                del self._runners[key]
            raise

    def _carry(self, key: tuple[str, int], runner: JobRunner) -> None:
        try:
            job = runner.run()
            _logger.info("%s is %s %s", key[0], job.state if job else "elsewhere", (job and job.reason) or "")
            self._remember(runner)
            self._close_run(runner, job)
        except Exception:
            # A bug of ours in one job must not take the others down; its lease runs out, and it queues again.
            _logger.exception("%s: the agent failed", key[0])
        finally:
            with self._lock:
                del self._runners[key]

    def _remember(self, runner: JobRunner) -> None:
        """Rest longer each time that a job which was said to fit did not, or has failed of this cluster: else an agent
        whose disk is full would take the whole queue, and fail it."""
        if runner.ending.reason not in (Reason.PENDING_TIMEOUT, Reason.INFRASTRUCTURE):
            self._in_vain = 0
            return
        self._in_vain += 1
        self._rests_until = time.monotonic() + pause_after(self._in_vain, 0.5, _LONGEST_REST_SECONDS)

    def _close_run(self, runner: JobRunner, job: Job | None) -> None:
        tracking = runner.settle(job) if job is not None else runner.tracking
        if tracking is None:
            return
        if job is not None and job.state in CLOSED_AS:
            self._run_closer.put(tracking, runner.held)
        else:
            self._run_closer.put_aside(tracking)

    def _all(self) -> list[JobRunner]:
        with self._lock:
            return list(self._runners.values())

    def _held(self) -> set[str]:
        with self._lock:
            return {job_id for job_id, _ in self._runners}

    def _code(self) -> set[str]:
        return {code for runner in self._all() if (code := origin_of(runner.held.job).code)}

    def _beat_soon(self) -> None:
        self._heartbeat.beat_soon()  # which is made after the bookings

    def _is_quiet(self) -> bool:
        """Whether the warm workers are there, and no job runs."""
        return not self._runners and not self._agent.cluster.warm.is_filling

    def _detail(self) -> Mapping[str, Any]:
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": __version__,
            "ray": self._agent.cluster.address,
            "warm": sum(self._agent.cluster.warm.idle().values()),
            "jobs": len(self._runners),
            "draining": self._asked_to_leave,
            "warnings": [
                *(not_kept(host) for host in self._agent.cluster.warm.wasteful().values()),
                *(clock_is_off(host, seconds) for host, seconds in self._agent.cluster.warm.clocks().items()),
                *self._heartbeat.warnings,
            ],
            "unsent_bytes": self._housekeeper.unsent_bytes,
            **self._agent.bookings.time.told(),
        }


class _Notices(SilentObserver):
    """What a person should read goes to the agent's own log."""

    def __init__(self, job_id: str) -> None:
        self._job_id = job_id

    def notice(self, text: str) -> None:
        _logger.info("%s: %s", self._job_id, text)
