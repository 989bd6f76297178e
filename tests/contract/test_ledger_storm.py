"""Users and agents in several threads, each doing anything at any moment: the promises hold."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from threading import Event as Flag

import pytest
from test_ledger_at_once import at_once
from test_ledger_machine import check_attempts, check_story

from epochal.errors import ConflictError
from epochal.ledger.capacity import Node
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import JobState, Reason
from epochal.ledger.values import Lease

NODES = [Node("n", "n", {"CPU": 4.0}, {"CPU": 4.0})]
LIMIT = 3
ROUNDS = 40


class Agent:
    """Leases what it is given, and tells anything about it; now and then it is started again, and forgets."""

    def __init__(self, ledger: Ledger, name: str, chance: random.Random) -> None:
        self.ledger, self.name, self.chance = ledger, name, chance
        self.incarnation = 0
        self.leases: list[Lease] = []
        self.start()

    def start(self) -> None:
        self.incarnation += 1
        self.leases = self.leases[-2:]  # an old one keeps its word for a while
        self.beat()

    def beat(self) -> None:
        self.ledger.heartbeat(self.name, str(self.incarnation), NODES, [], {})

    def lease(self) -> None:
        lease = self.ledger.lease(
            f"{self.name}/{self.incarnation}", self.chance.choice([0, 60, 60]), secret=str(self.chance.random())
        )
        self.leases += [lease] if lease else []

    def tell(self) -> None:
        if self.leases:
            lease = self.chance.choice(self.leases)
            self.chance.choice(
                [
                    lambda: self.ledger.renew(lease, 60),
                    lambda: self.ledger.running(lease, self.chance.randint(1, 2)),
                    lambda: self.ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED),
                    lambda: self.ledger.retry(lease, Reason.INFRASTRUCTURE),
                    lambda: self.ledger.lease_again(lease, 60, Reason.INFRASTRUCTURE),
                    lambda: self.ledger.retry(lease, Reason.INTERRUPTED, lost=True),
                    lambda: self.ledger.saved(lease, 1, "checkpoints/1"),
                    lambda: self.ledger.stopped(lease),
                    lambda: self.ledger.pause(lease),
                ]
            )()

    def act(self) -> None:
        self.chance.choice([self.start, self.beat, *[self.lease] * 5, *[self.tell] * 8])()


class User:
    """Submits, and asks for anything."""

    def __init__(self, ledger: Ledger, name: str, chance: random.Random) -> None:
        self.ledger, self.name, self.chance = ledger, name, chance
        self.jobs = [self.submit()]

    def submit(self) -> str:
        spec = {"resources": {"workers": self.chance.randint(1, 5)}, "preemptible": self.chance.random() < 0.5}
        priority = self.chance.randint(0, 100)
        return self.ledger.submit(spec, name="storm", priority=priority, submitted_by=self.name).id

    def act(self) -> None:
        job = self.chance.choice(self.jobs)
        asks: list[Callable[[], object]] = [
            *[lambda: self.jobs.append(self.submit())] * 4,
            lambda: self.ledger.request_stop(job),
            lambda: self.ledger.request_pause(job),
            lambda: self.ledger.resume(job),
            lambda: self.jobs.append(self.ledger.retry_job(job, self.name).id),
            self.ledger.expire,
            self.ledger.queue,
            lambda: self.ledger.why(job),
        ]
        self.chance.choice(asks)()


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_storm(ledger: Ledger, seed: int) -> None:
    ledger.set_quota("user", "*", jobs=LIMIT)
    calm = Flag()
    actors = [
        *(Agent(ledger, name, random.Random(f"{name}{seed}")) for name in "xyz"),
        *(User(ledger, name, random.Random(f"{name}{seed}")) for name in ("ada", "ben", "cyd")),
    ]

    def act(number: int) -> int:
        if number == len(actors):
            return watch(ledger, calm)
        try:
            for _ in range(ROUNDS):
                with suppress(ConflictError):  # someone else was there first
                    actors[number].act()
        finally:
            done.append(number)
            if len(done) == len(actors):
                calm.set()
        return 0

    done: list[int] = []
    results = at_once(len(actors) + 1, act)
    assert not [result for result in results if isinstance(result, BaseException)], results
    assert results[-1] > 0, "the watcher saw it"
    submitted = {job for actor in actors if isinstance(actor, User) for job in actor.jobs}
    found = {job.id: job for job in ledger.jobs()}
    assert found.keys() == submitted, "a job was lost or invented"
    for job in found.values():
        check_attempts(job, ledger.attempts(job.id))
        check_story(job, ledger.events(job.id))


def watch(ledger: Ledger, calm: Flag) -> int:
    """Meanwhile no user is ever over the quota. How often it looked."""
    looks = 0
    while not calm.is_set():
        active = [job.submitted_by for job in ledger.jobs() if job.state.is_active]
        assert all(active.count(user) <= LIMIT for user in set(active))
        looks += 1
    return looks


def test_first_heartbeats_of_two_incarnations_at_once(ledger: Ledger) -> None:
    results = at_once(8, lambda number: ledger.heartbeat("a", str(number % 2), NODES, [], {}))
    assert all(isinstance(result, ConflictError) or result.name == "a" for result in results)
    assert len(ledger.agents()) == 1


def test_same_quota_set_at_once(ledger: Ledger) -> None:
    results = at_once(8, lambda number: ledger.set_quota("user", "ada", jobs=number))
    assert ledger.quotas()[0] in results


def test_quota_holds_between_agents_that_lease_at_once(ledger: Ledger) -> None:
    ledger.set_quota("user", "ada", jobs=5)
    for _ in range(40):
        ledger.submit({}, name="job", submitted_by="ada")
    wide = [Node("n", "n", {"CPU": 100.0}, {"CPU": 100.0})]
    for name in "stuvwxyz":
        ledger.heartbeat(name, "1", wide, [], {})
    leases = at_once(8, lambda number: [ledger.lease(f"{'stuvwxyz'[number]}/1", 60) for _ in range(4)])
    assert len([lease for some in leases for lease in some if lease]) == 5
