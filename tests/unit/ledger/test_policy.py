"""The queue policy, told by example.

One cluster of one node with four CPUs, unless said otherwise; a job asks for one worker with one CPU, unless said
otherwise.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal.ledger import making_room
from epochal.ledger.capacity import Demand, Node, fit, fits_ever, freed, placed
from epochal.ledger.contenders import Running, Waiting
from epochal.ledger.making_room import victims
from epochal.ledger.policy import HOLD, PATIENCE, Decision, decide, holds, in_order, may_start
from epochal.ledger.usage import Usage
from epochal.ledger.values import Quota, QuotaKind

NOW = 100_000.0
MINUTE = 60.0


def node(cpus: float, free: float | None = None, gpus: float = 0, name: str = "a") -> Node:
    total = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
    return Node(name, f"host-{name}", total, total | {"CPU": cpus if free is None else free})


FOUR_FREE = (node(4),)
ONE_FREE = (node(4, free=1),)
NONE_FREE = (node(4, free=0),)


def workers(count: int, **each: float) -> Demand:
    return Demand((count, count), **each)


def job(name: str, number: int, needs: int = 1, waited: float = 0.0, **more) -> Waiting:
    return Waiting(name, number, demand=workers(needs), since=NOW - waited, **more)


def running(name: str, has: int = 1, **more) -> Running:
    return Running(name, demand=workers(has), **more)


def next_of(queue, nodes=FOUR_FREE, running=(), quotas=()) -> Decision:
    return decide(queue, running, nodes, quotas, NOW)


class TestOrder:
    def test_higher_priority_goes_first(self) -> None:
        assert next_of([job("low", 1, priority=10), job("high", 2, priority=90)]).start == "high"

    def test_of_one_priority_the_first_to_arrive_goes_first(self) -> None:
        assert next_of([job("second", 2), job("first", 1)]).start == "first"

    def test_empty_queue_is_nothing_to_do(self) -> None:
        assert next_of([]) == Decision()

    def test_elastic_job_starts_with_the_workers_that_fit(self) -> None:
        elastic = Waiting("elastic", 1, demand=Demand((1, 8)), since=NOW)
        assert next_of([elastic], ONE_FREE).start == "elastic"


class TestBigJobsAndSmallOnes:
    def test_small_job_passes_a_big_one_that_does_not_fit_now(self) -> None:
        assert next_of([job("big", 1, needs=4), job("small", 2)], ONE_FREE).start == "small"

    def test_big_job_that_has_waited_five_minutes_holds_the_cluster(self) -> None:
        queue = [job("big", 1, needs=4, waited=PATIENCE), job("small", 2)]
        assert next_of(queue, ONE_FREE) == Decision(holder="big")

    def test_it_starts_as_soon_as_there_is_room(self) -> None:
        assert next_of([job("big", 1, needs=4, waited=PATIENCE), job("small", 2)], FOUR_FREE).start == "big"

    def test_it_lets_others_pass_again_after_ten_minutes(self) -> None:
        queue = [job("big", 1, needs=4, waited=PATIENCE + HOLD), job("small", 2)]
        assert next_of(queue, ONE_FREE).start == "small"

    def test_and_holds_again_five_minutes_later(self) -> None:
        queue = [job("big", 1, needs=4, waited=2 * PATIENCE + HOLD), job("small", 2)]
        assert next_of(queue, ONE_FREE).holder == "big"

    @pytest.mark.parametrize("waited", [0, 1, 4.9, 5, 9, 14.9, 15, 19, 20, 21, 34.9, 35, 1000])
    def test_nobody_is_held_back_for_longer_than_ten_minutes_at_a_time(self, waited: float) -> None:
        """Somewhere in any ten minutes it can start."""
        moments = [(waited + half * 0.5) * MINUTE for half in range(21)]
        decisions = [next_of([job("big", 1, needs=4, waited=moment), job("small", 2)], ONE_FREE) for moment in moments]
        assert "small" in [decision.start for decision in decisions]

    def test_only_the_first_of_several_big_jobs_holds(self) -> None:
        """Else one after the other would, and a small job would never start."""
        queue = [job("new", 1, needs=4), job("old", 2, needs=3, waited=PATIENCE), job("small", 3)]
        assert next_of(queue, ONE_FREE).start == "small"

    def test_job_ahead_of_the_holder_is_not_held_back(self) -> None:
        queue = [job("urgent", 2, priority=90), job("big", 1, needs=4, waited=PATIENCE)]
        assert next_of(queue, ONE_FREE).start == "urgent"

    def test_job_that_can_never_fit_holds_nobody_back(self) -> None:
        queue = [job("impossible", 1, needs=5, waited=PATIENCE), job("small", 2)]
        assert next_of(queue, ONE_FREE).start == "small"

    def test_clock_that_was_set_back_holds_nobody_back(self) -> None:
        assert next_of([job("big", 1, needs=4, waited=-1e6), job("small", 2)], ONE_FREE).start == "small"


class TestQuotas:
    ANNA = Quota(QuotaKind.USER, "anna", jobs=2, cpus=4)

    def test_user_over_the_quota_is_passed_by_others(self) -> None:
        queue = [job("third", 1, user="anna"), job("other", 2, user="ben")]
        taken = [running("one", user="anna"), running("two", user="anna")]
        assert next_of(queue, running=taken, quotas=[self.ANNA]).start == "other"

    def test_cpus_are_counted_over_all_workers(self) -> None:
        queue = [job("wide", 1, needs=3, user="anna")]
        assert next_of(queue, running=[running("one", has=2, user="anna")], quotas=[self.ANNA]) == Decision()
        assert next_of(queue, running=[running("one", has=1, user="anna")], quotas=[self.ANNA]).start == "wide"

    def test_gpus_too(self) -> None:
        needs_gpus = Waiting("gpus", 1, demand=workers(2, gpus=1.0), queue="research", since=NOW)
        limit = Quota(QuotaKind.QUEUE, "research", gpus=1)
        assert next_of([needs_gpus], (node(4, gpus=4),), quotas=[limit]) == Decision()
        assert next_of([needs_gpus], (node(4, gpus=4),), quotas=[replace(limit, gpus=2)]).start == "gpus"

    def test_quota_of_a_queue_counts_everybody_in_it(self) -> None:
        nightly = Quota(QuotaKind.QUEUE, "nightly", jobs=1)
        queue = [job("second", 1, user="ben", queue="nightly"), job("by-day", 2, user="ben")]
        taken = [running("first", user="anna", queue="nightly")]
        assert next_of(queue, running=taken, quotas=[nightly]).start == "by-day"

    def test_star_is_for_everyone_without_a_quota_of_their_own(self) -> None:
        quotas = [Quota(QuotaKind.USER, "*", jobs=1), self.ANNA]
        taken = [running("one", user="anna"), running("two", user="ben")]
        queue = [job("ben", 1, user="ben"), job("anna", 2, user="anna")]
        assert next_of(queue, running=taken, quotas=quotas).start == "anna"

    def test_elastic_job_has_what_its_quotas_leave(self) -> None:
        elastic = Waiting("elastic", 1, demand=Demand((2, 8)), user="anna", since=NOW)
        eight = (node(8),)
        assert next_of([elastic], eight, quotas=[self.ANNA]) == Decision(start="elastic", workers=4)
        taken = [running("one", user="anna", has=3)]
        assert next_of([elastic], eight, taken, [self.ANNA]) == Decision()

    def test_running_elastic_job_counts_with_what_it_has_or_may_take(self) -> None:
        elastic = Running("elastic", demand=Demand((1, 8)), user="anna")
        for counted, one in ((3, replace(elastic, world_size=3)), (3, replace(elastic, granted=3)), (8, elastic)):
            usage = Usage.of([one], [self.ANNA])
            assert usage.workers_left(job("other", 1, user="anna")) == max(0, 4 - counted)

    def test_jobs_of_other_clusters_count(self) -> None:
        taken = [running("one", user="anna", here=False), running("two", user="anna", here=False)]
        assert next_of([job("third", 1, user="anna")], running=taken, quotas=[self.ANNA]) == Decision()

    def test_job_over_its_quota_neither_holds_the_cluster_nor_preempts(self) -> None:
        queue = [job("over", 1, needs=4, waited=PATIENCE, user="anna", priority=90), job("small", 2)]
        taken = [running("one", has=3, user="anna", preemptible=True)]
        assert next_of(queue, ONE_FREE, taken, [self.ANNA]).start == "small"


class TestPreemption:
    URGENT = job("urgent", 9, needs=2, priority=90)

    def test_preemptible_job_of_lower_priority_makes_room(self) -> None:
        taken = [running("cheap", has=4, preemptible=True)]
        assert next_of([self.URGENT], NONE_FREE, taken) == Decision(preempt=("cheap",), holder="urgent")

    def test_nobody_leaves_who_is_not_preemptible_or_is_as_important(self) -> None:
        taken = [running("firm", has=2), running("equal", has=2, priority=90, preemptible=True)]
        assert next_of([self.URGENT], NONE_FREE, taken) == Decision()

    def test_nobody_leaves_where_the_job_fits_anyway(self) -> None:
        assert next_of([self.URGENT], FOUR_FREE, [running("cheap", preemptible=True)]).preempt == ()

    def test_nobody_leaves_where_that_would_not_be_enough(self) -> None:
        assert next_of([self.URGENT], NONE_FREE, [running("cheap", preemptible=True)]) == Decision()

    def test_one_leaves_rather_than_two(self) -> None:
        taken = [
            running("small", priority=1, preemptible=True),
            running("other", priority=1, preemptible=True),
            running("wide", has=2, priority=40, preemptible=True),
        ]
        assert next_of([self.URGENT], NONE_FREE, taken).preempt == ("wide",)

    def test_the_lowest_priority_leaves_first(self) -> None:
        taken = [running("more", has=2, priority=20, preemptible=True), running("less", has=2, preemptible=True)]
        assert next_of([self.URGENT], NONE_FREE, [replace(taken[1], priority=10), taken[0]]).preempt == ("less",)

    def test_of_one_priority_the_latest_to_start_loses_the_least(self) -> None:
        taken = [
            running("old", has=2, started=1.0, preemptible=True),
            running("new", has=2, started=2.0, preemptible=True),
        ]
        assert next_of([self.URGENT], NONE_FREE, taken).preempt == ("new",)

    def test_only_what_runs_on_this_cluster_can_make_room_on_it(self) -> None:
        assert next_of([self.URGENT], NONE_FREE, [running("far", has=4, here=False, preemptible=True)]) == Decision()

    def test_elastic_job_leaves_behind_what_it_has_not_what_it_may_have(self) -> None:
        shrunk = Running("elastic", demand=Demand((1, 4)), preemptible=True, world_size=1)
        assert next_of([self.URGENT], NONE_FREE, [shrunk]) == Decision()
        assert next_of([self.URGENT], NONE_FREE, [replace(shrunk, world_size=2)]).preempt == ("elastic",)

    def test_while_they_leave_the_room_is_kept(self) -> None:
        leaving = running("cheap", has=4, preemptible=True, leaving_since=NOW - 5)
        assert next_of([self.URGENT, job("small", 1)], ONE_FREE, [leaving]) == Decision(holder="urgent", expected=True)

    def test_but_not_for_ever(self) -> None:
        stuck = running("stuck", has=3, preemptible=True, leaving_since=NOW - HOLD)
        assert next_of([self.URGENT, job("small", 1)], ONE_FREE, [stuck]).start == "small"

    def test_two_clusters_do_not_both_make_room_for_one_job(self) -> None:
        elsewhere = running("far", has=4, here=False, preemptible=True, leaving_since=NOW)
        assert next_of([self.URGENT], NONE_FREE, [elsewhere, running("near", has=4, preemptible=True)]).preempt == ()

    def test_many_small_jobs_are_found_without_trying_every_set(self) -> None:
        taken = [
            running(f"j{number:02}", priority=number % 5, started=number, preemptible=True) for number in range(40)
        ]
        nodes = tuple(node(1, free=0, name=str(number)) for number in range(40))
        chosen = next_of([job("wide", 1, needs=30, priority=90)], nodes, taken).preempt
        assert len(chosen) == 30
        assert not {"j34", "j39"} & set(chosen) or {"j00", "j05", "j10"} <= set(chosen)


DEMANDS = st.builds(
    lambda low, more, cpus: Demand((low, low + more), cpus),
    st.integers(1, 5),
    st.integers(0, 3),
    st.sampled_from([0.5, 1, 2]),
)
QUEUE = st.lists(st.tuples(DEMANDS, st.integers(0, 100), st.floats(0, 5000), st.sampled_from("ab")), max_size=8).map(
    lambda rows: [Waiting(f"q{n}", n, p, d, user, since=NOW - w) for n, (d, p, w, user) in enumerate(rows)]
)
RUNNING = st.lists(
    st.tuples(DEMANDS, st.integers(0, 100), st.booleans(), st.none() | st.floats(0, 1000)), max_size=5
).map(lambda rows: [
    Running(f"r{n}", p, d, "a", preemptible=pre, leaving_since=None if gone is None else NOW - gone)
    for n, (d, p, pre, gone) in enumerate(rows)
])  # fmt: skip
CLUSTER = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=1, max_size=3).map(
    lambda rows: tuple(node(cpus, min(cpus, free), name=str(n)) for n, (cpus, free) in enumerate(rows))
)
QUOTAS = st.just([]) | st.just([Quota(QuotaKind.USER, "*", jobs=2)])


@given(QUEUE, RUNNING, CLUSTER, QUOTAS)
def test_whatever_is_asked(queue, taken, nodes, quotas) -> None:
    decision = decide(queue, taken, nodes, quotas, NOW)
    by_id = {one.id: one for one in queue}
    if decision.start:
        chosen = by_id[decision.start]
        assert fit(nodes, chosen.demand)
        assert not decision.preempt
        assert not quotas or chosen.user == "b" or len(taken) < 2
    for victim in (one for one in taken if one.id in decision.preempt):
        assert victim.preemptible
        assert victim.leaving_since is None
        assert victim.priority < by_id[decision.holder].priority
    if decision == Decision():
        able = [one for one in queue if fit(nodes, one.demand)]
        assert all(quotas and one.user == "a" and len(taken) >= 2 for one in able), "somebody could have started"


def plain_decision(queue, running, nodes, quotas, now) -> Decision:
    """The policy without grouping and without memory: job by job, every question asked anew."""
    usage = Usage.of(running, quotas)
    gone = [one for one in running if one.leaving_since is not None and now - one.leaving_since < HOLD]
    emptier = nodes
    for one in gone:
        emptier = freed(emptier, one.share) if one.here else emptier
    is_first = True
    for job in in_order(queue):
        if usage.excess(job) or not fits_ever(nodes, job.demand):
            continue
        if fit(nodes, job.demand):
            return Decision(start=job.id, workers=min(fit(nodes, job.demand), usage.workers_left(job)))
        if any(one.here for one in gone) and fit(emptier, job.demand):
            return Decision(holder=job.id, expected=True)
        if not any(one.preemptible for one in gone) and (chosen := victims(job, running, nodes)):
            return Decision(preempt=tuple(one.id for one in chosen), holder=job.id)
        if is_first and holds(job, now):
            return Decision(holder=job.id)
        is_first = False
    return Decision()


MANY_ALIKE = st.lists(
    st.tuples(
        st.sampled_from([Demand(), Demand((2, 2)), Demand((2, 4), 2.0), Demand((8, 8))]),
        st.sampled_from([10, 50]),
        st.floats(0, 5000),
        st.sampled_from("ab"),
        st.sampled_from(["default", "nightly"]),
    ),
    max_size=30,
).map(lambda rows: [Waiting(f"q{n}", n, p, d, u, q, since=NOW - w) for n, (d, p, w, u, q) in enumerate(rows)])
SOME_QUOTAS = st.lists(
    st.builds(Quota, st.sampled_from(QuotaKind), st.sampled_from(["*", "a", "nightly"]), st.none() | st.integers(0, 3)),
    max_size=2,
)


@given(MANY_ALIKE, RUNNING, CLUSTER, SOME_QUOTAS)
def test_the_first_of_those_alike_decides_for_all_of_them(queue, taken, nodes, quotas) -> None:
    firsts: dict[object, Waiting] = {}
    for one in in_order(queue):
        alike = one.priority, one.demand, one.user, one.queue, one.storage  # as `jobs.kind`
        firsts.setdefault(alike, one)
    plain = plain_decision(queue, taken, nodes, quotas, NOW)
    assert decide(firsts.values(), taken, nodes, quotas, NOW) == decide(queue, taken, nodes, quotas, NOW) == plain
    if plain.start:
        assert may_start(next(one for one in queue if one.id == plain.start), taken, nodes, quotas, NOW)


@given(QUEUE, CLUSTER)
def test_queue_empties_when_jobs_end(queue, nodes) -> None:
    """Whatever is in the queue, all that can ever fit gets its turn on a cluster that is idle again and again."""
    idle = tuple(replace(one, available=one.total) for one in nodes)
    left = list(queue)
    while (decision := decide(left, (), idle, (), NOW)).start:
        left = [one for one in left if one.id != decision.start]
    assert not [one for one in left if fit(idle, one.demand)]


@given(DEMANDS, CLUSTER)
def test_placing_takes_what_fits(demand, nodes) -> None:
    count = fit(nodes, demand)
    after = placed(nodes, demand) if count else nodes
    free = sum(one.available["CPU"] for one in nodes) - sum(one.available["CPU"] for one in after)
    assert free == pytest.approx(count * demand.cpus)


@given(
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from([0.3, 1.0, 2.0])), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(2, 4), st.floats(0, 1)), min_size=1, max_size=3),
    st.tuples(st.integers(1, 6), st.sampled_from([0.5, 1.0, 3.0])),
)
def test_as_few_leave_as_can(
    taken: list[tuple[int, float]], sizes: list[tuple[int, float]], asked: tuple[int, float]
) -> None:
    nodes = tuple(node(cpus, free=cpus * free, name=str(number)) for number, (cpus, free) in enumerate(sizes))
    here = [
        Running(str(number), 10, workers(count, cpus=cpus), preemptible=True, started=float(number), world_size=count)
        for number, (count, cpus) in enumerate(taken)
    ]
    waits = Waiting("waits", 1, 90, workers(asked[0], cpus=asked[1]))
    every = (some for size in range(1, len(here) + 1) for some in combinations(here, size))
    enough = (some for some in every if making_room.fits_without(waits, nodes, [one.share for one in some]))
    assert len(victims(waits, here, nodes)) == len(next(enough, ()))


def test_who_leaves_a_large_cluster_is_soon_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others who ask for a lease wait meanwhile: of two thousand sets that were tried, none could be enough."""
    looks: list[int] = []
    monkeypatch.setattr(making_room, "fit", lambda nodes, demand: looks.append(len(nodes)) or fit(nodes, demand))
    nodes = [node(8, free=0, name=str(number)) for number in range(50)]
    here = [running(str(number), 4, preemptible=True, priority=10, world_size=4) for number in range(100)]
    assert len(victims(job("big", 1, needs=40, priority=90), here, nodes)) == 10
    assert len(looks) <= 20
