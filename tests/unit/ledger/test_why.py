"""What `epochal why` says, told by example. One node with four CPUs, as in the examples of the policy."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from test_policy import (
    CLUSTER,
    DEMANDS,
    FOUR_FREE,
    MANY_ALIKE,
    NONE_FREE,
    NOW,
    ONE_FREE,
    QUEUE,
    QUOTAS,
    RUNNING,
    SOME_QUOTAS,
    job,
    node,
    running,
    workers,
)

from epochal.ledger.capacity import Demand, Node
from epochal.ledger.contenders import Ahead, Cluster, Running, Waiting
from epochal.ledger.explanation import AHEAD, explain, explain_one
from epochal.ledger.policy import HOLD, PATIENCE, decide, in_order
from epochal.ledger.values import Quota, QuotaKind, Why, WhyKind


def whys(queue, nodes=FOUR_FREE, running=(), quotas=()) -> dict[str, Why]:
    return dict(explain(queue, running, [Cluster(tuple(nodes), tuple(running))], quotas, NOW))


def why(one: Waiting, nodes=FOUR_FREE, running=(), quotas=()) -> Why:
    return whys([one], nodes, running, quotas)[one.id]


def test_the_next_to_start() -> None:
    assert why(job("only", 1)) == Why(WhyKind.RUNS_NOW, "it is the next to start")


def test_those_for_which_there_is_room_too_start_right_after() -> None:
    found = whys([job("first", 1, needs=2), job("second", 2), job("third", 3)])
    assert [one.kind for one in found.values()] == [WhyKind.RUNS_NOW, WhyKind.STARTS_NEXT, WhyKind.STARTS_NEXT]
    assert found["third"].ahead == ("second", "first")
    assert found["third"].message == "there is room for it: it starts after second and 1 more"


def test_no_room_now_says_what_is_missing_and_what_would_fit() -> None:
    found = why(job("wide", 1, needs=4), (node(4, free=3),))
    assert found.kind is WhyKind.NO_ROOM_NOW
    assert found.message == "no room now for 4 workers with 1 CPU each: 3 CPU free on the whole cluster"
    assert found.shortfall == "room for 1 more worker: 1 CPU"
    assert found.change == "resources.workers=3"


def test_where_not_one_worker_fits_the_nearest_node_is_told() -> None:
    big = Waiting("big", 1, demand=workers(1, cpus=4.0, memory=4 * 2**30), since=NOW)
    total = {"CPU": 4.0, "memory": 8.0 * 2**30}
    nodes = (
        Node("a", "host-a", total, {"CPU": 0.0, "memory": 0.0}),
        Node("b", "host-b", total, {"CPU": 3.0, "memory": 2.0 * 2**30}),
    )
    found = why(big, nodes)
    assert found.shortfall == "1 CPU, 2 GiB of memory on the node host-b"
    assert found.change == "resources.cpus_per_worker=3 and resources.memory_per_worker=2GiB"


def test_where_nothing_is_free_all_workers_are_missing() -> None:
    assert why(job("whole", 1, needs=2), NONE_FREE).shortfall == "room for 2 workers: 2 CPU"


def test_behind_others() -> None:
    found = whys([job("first", 1, needs=3), job("second", 2, needs=2)])["second"]
    assert found.kind is WhyKind.BEHIND
    assert found.ahead == ("first",)
    assert found.message == "no room for 2 workers with 1 CPU each behind first: 1 CPU left"
    assert found.change == "resources.workers=1"


def test_behind_others_where_nothing_is_left_a_higher_priority_would_start_it() -> None:
    queue = [job("first", 1, needs=4), job("second", 2, needs=4)]
    assert whys(queue)["second"].change == "priority=51"
    assert whys([replace(queue[0], priority=100), queue[1]])["second"].change == ""


def test_many_ahead_are_counted_and_the_nearest_named() -> None:
    queue = [job(f"j{number}", number) for number in range(100)]
    last = whys(queue, NONE_FREE)["j99"]
    assert last.ahead == tuple(f"j{number}" for number in range(98, 98 - AHEAD, -1))
    assert "behind j98 and 98 more" in last.message


def test_many_that_start_before_it_are_counted() -> None:
    queue = [job(f"j{number}", number) for number in range(30)]
    last = whys(queue, [node(64)])["j29"]
    assert len(last.ahead) == AHEAD
    assert last.message == "there is room for it: it starts after j28 and 28 more"


def test_never_fits() -> None:
    found = why(job("huge", 1, needs=9))
    assert found.kind is WhyKind.NEVER_FITS
    assert found.message == "9 workers with 1 CPU each can never fit: the cluster has 1 node, the biggest with 4 CPU"
    assert found.change == "resources.workers=4"
    gpu = Waiting("gpu", 1, demand=workers(1, gpus=1.0), since=NOW)
    assert why(gpu).shortfall == "1 GPU on the node host-a"
    assert why(gpu).change == "resources.gpus_per_worker=0"


def test_over_quota() -> None:
    quotas = [Quota(QuotaKind.USER, "anna", cpus=4)]
    found = why(job("mine", 1, needs=3, user="anna"), running=[running("first", has=3, user="anna")], quotas=quotas)
    assert found.kind is WhyKind.OVER_QUOTA
    assert found.message == "over the quota of user anna: 6 CPUs with it, and 4 allowed"
    assert found.shortfall == "2 CPUs"
    assert found.change == "raise the quota of user anna from 4 to 6 CPUs"


def test_elastic_job_is_over_quota_where_its_least_is() -> None:
    elastic = Waiting("mine", 1, demand=Demand((2, 16)), user="anna", since=NOW)
    assert why(elastic, quotas=[Quota(QuotaKind.USER, "anna", cpus=5.0)]).kind is WhyKind.RUNS_NOW
    found = why(elastic, quotas=[Quota(QuotaKind.USER, "anna", cpus=1.0)])
    assert found.change == "raise the quota of user anna from 1 to 2 CPUs"


def test_jobs_that_will_start_count_for_the_quota_of_those_behind_them() -> None:
    quotas = [Quota(QuotaKind.QUEUE, "*", jobs=1)]
    found = whys([job("first", 1), job("second", 2)], quotas=quotas)
    assert found["second"].change == "raise the quota of queue default from 1 to 2 running jobs"


def test_no_agent() -> None:
    assert dict(explain([job("only", 1)], [], [], [], NOW))["only"].kind is WhyKind.NO_AGENT
    assert why(job("only", 1), ()).kind is WhyKind.NO_AGENT


def test_held_back() -> None:
    queue = [job("big", 1, needs=4, waited=PATIENCE + 60), job("small", 2)]
    found = whys(queue, ONE_FREE)
    assert found["big"].kind is WhyKind.NO_ROOM_NOW
    assert found["small"].kind is WhyKind.HELD_BACK
    assert found["small"].ahead == ("big",)
    assert found["small"].message == ("big has waited long and suspends backfill until 1970-01-02T03:55:40.000Z")
    assert HOLD - 60 == 540  # 100,000 s are 03:46:40 of the second day


def test_room_is_being_made() -> None:
    urgent, small = job("urgent", 2, needs=2, priority=90), job("small", 1)
    cheap = running("cheap", has=3, preemptible=True)
    for taken in (cheap, replace(cheap, leaving_since=NOW - 1)):
        found = whys([urgent, small], ONE_FREE, [taken])
        assert found["urgent"].kind is WhyKind.STARTS_NEXT
        assert found["small"] == Why(
            WhyKind.HELD_BACK, "room is being made for urgent, which goes first", ("urgent",), "", "priority=91"
        )


def test_of_several_clusters_the_one_with_hope_is_told() -> None:
    clusters = [Cluster((node(2, free=0),)), Cluster((node(8, free=8),))]
    found = dict(explain([job("first", 1, needs=8), job("second", 2, needs=2)], [], clusters, [], NOW))
    assert found["first"].kind is WhyKind.RUNS_NOW
    assert found["second"].kind is WhyKind.NO_ROOM_NOW or found["second"].kind is WhyKind.BEHIND


@given(QUEUE, RUNNING, CLUSTER, QUOTAS)
def test_why_agrees_with_the_decision(queue: list[Waiting], taken: list[Running], nodes, quotas) -> None:
    decision = decide(queue, taken, nodes, quotas, NOW)
    found = whys(queue, nodes, taken, quotas)
    assert found.keys() == {one.id for one in queue}
    now = [name for name, one in found.items() if one.kind is WhyKind.RUNS_NOW]
    assert now == ([decision.start] if decision.start else [])
    if decision.preempt:
        assert found[decision.holder].kind is WhyKind.STARTS_NEXT


def ahead_of(one: Waiting, queue: list[Waiting]) -> Ahead:
    """As the ledger reads it: classes by their numbers, and jobs when they are looked at."""
    by_number, classes = {other.number: other for other in queue}, dict[object, list[int]]()
    for other in in_order(queue):
        alike = other.priority, other.demand, other.user, other.queue, other.storage
        classes.setdefault(alike, []).append(other.number)
    return Ahead.of(one, list(classes.values()), lambda numbers: [by_number[number] for number in numbers])


@given(MANY_ALIKE, RUNNING, CLUSTER, SOME_QUOTAS)
def test_of_one_it_says_what_it_says_of_it_among_all(queue, taken, nodes, quotas) -> None:
    """Though those ahead of it that wait like others before them are not looked at one by one."""
    clusters = [Cluster(nodes, tuple(taken)), Cluster((node(4, free=2, name="far"),))]
    by_id = {one.id: one for one in queue}
    for identity, told in explain(queue, taken, clusters, quotas, NOW):
        one = by_id[identity]
        assert explain_one(one, ahead_of(one, queue), taken, clusters, quotas, NOW) == told


@given(DEMANDS, CLUSTER)
def test_the_change_would_start_it(demand: Demand, nodes) -> None:
    """By itself on the cluster, what is proposed is enough."""
    asked = Waiting("only", 1, demand=demand, since=NOW)
    found = why(asked, nodes)
    idle = [replace(one, available=one.total) for one in nodes]
    if found.change:
        changes = dict(change.removeprefix("resources.").split("=") for change in found.change.split(" and "))
        count = int(changes.get("workers", demand.workers[0]))
        smaller = replace(demand, workers=(count, count), cpus=float(changes.get("cpus_per_worker", demand.cpus)))
        assert smaller != demand
        free = idle if found.kind is WhyKind.NEVER_FITS else nodes
        assert why(replace(asked, demand=smaller), free).kind is WhyKind.RUNS_NOW
    else:
        assert found.kind is WhyKind.RUNS_NOW or not any(one.available["CPU"] for one in nodes)
