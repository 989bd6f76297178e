"""How running sweeps give workers back and take more, as a table of situations, and under any.

One node; a worker takes one CPU; a sweep's trials have one worker each, unless said otherwise.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal.ledger.capacity import Demand, Node, fit, freed, placed
from epochal.ledger.contenders import Cluster, Running, Waiting
from epochal.ledger.explanation import explain
from epochal.ledger.policy import HOLD, Decision, decide
from epochal.ledger.values import Quota, QuotaKind, WhyKind

NOW = 100_000.0


def nodes(cpus: float, free: float) -> tuple[Node, ...]:
    return (Node("a", "host-a", {"CPU": cpus}, {"CPU": free}),)


def job(needs: int = 1, priority: int = 90, number: int = 9, name: str = "job") -> Waiting:
    return Waiting(name, number, priority, Demand((needs, needs)), since=NOW)


def sweep(has: int, most: int = 8, name: str = "sweep", each: int = 1, **more) -> Running:
    demand = Demand((each, most), step=each)
    return Running(name, demand=demand, world_size=has, **{"granted": has, "number": 5, **more})


GIVES_ONE = Decision(holder="job", resize=(("sweep", 1),))
FIRM = Running("firm", demand=Demand((1, 1)))
CHEAP = Running("cheap", demand=Demand((2, 2)), preemptible=True, priority=10)
PAIRS = sweep(4, each=2)
LESS = {"priority": 10}

SHRINKS = {
    "gives one": (nodes(2, 0), [job()], [sweep(2)], GIVES_ONE),
    "gives no more than is needed": (nodes(4, 0), [job()], [sweep(4)], replace(GIVES_ONE, resize=(("sweep", 3),))),
    "gives all but a trial's": (nodes(4, 0), [job(3)], [sweep(4)], GIVES_ONE),
    "gives what is free and some": (nodes(4, 1), [job(2)], [sweep(3)], replace(GIVES_ONE, resize=(("sweep", 2),))),
    "keeps its last": (nodes(2, 0), [job(2)], [sweep(2)], Decision()),
    "leaves whole": (
        nodes(2, 0), [job(2)], [sweep(2, preemptible=True)], Decision(holder="job", preempt=("sweep",))
    ),
    "gives rather than leaves": (nodes(2, 0), [job()], [sweep(2, preemptible=True)], GIVES_ONE),
    "gives a trial's workers together": (nodes(4, 0), [job()], [PAIRS], replace(GIVES_ONE, resize=(("sweep", 2),))),
    "not to a later job": (nodes(2, 0), [job(priority=50)], [sweep(2)], Decision()),
    "to an earlier one of its priority": (nodes(2, 0), [job(priority=50, number=1)], [sweep(2)], GIVES_ONE),
    "not to one of less priority": (nodes(2, 0), [job(priority=10, number=1)], [sweep(2)], Decision()),
    "not where it is elsewhere": (nodes(2, 0), [job()], [sweep(2, here=False)], Decision()),
    "not where it ends": (nodes(2, 0), [job()], [sweep(2, leaving_since=NOW - HOLD)], Decision()),
    "not a training": (nodes(2, 0), [job()], [Running("t", demand=Demand((1, 2)), world_size=2)], Decision()),
    "the cheapest gives": (
        nodes(6, 0), [job(3)], [sweep(3), sweep(3, name="cheap", **LESS)],
        Decision(holder="job", resize=(("cheap", 1), ("sweep", 2))),
    ),
    "one gives so that fewer leave": (
        nodes(5, 0), [job(3)], [sweep(3, priority=60), CHEAP],
        Decision(holder="job", preempt=("cheap",), resize=(("sweep", 2),)),
    ),
    "what it might take is not taken": (nodes(2, 0), [job()], [sweep(1, granted=2)], GIVES_ONE),
}  # fmt: skip

WAITS = {
    "room is coming": (
        nodes(2, 0), [job()], [sweep(2, granted=1, granted_at=NOW)], Decision(holder="job", expected=True)
    ),
    "too little is coming": (nodes(4, 0), [job(3)], [sweep(4, granted=3, granted_at=NOW)], Decision()),
    "others wait with it": (
        nodes(3, 1), [job(2), job(name="late", number=10)], [sweep(2, granted=1, granted_at=NOW)],
        Decision(holder="job", expected=True),
    ),
    "but not for ever": (
        nodes(3, 1), [job(2), job(name="late", number=10)], [sweep(2, granted=1, granted_at=NOW - HOLD)],
        Decision(start="late", workers=1),
    ),
    "one at a time": (
        nodes(2, 0), [job()], [sweep(2), sweep(2, name="far", here=False, granted=1, granted_at=NOW)], Decision()
    ),
}  # fmt: skip

TWO = Decision(resize=(("sweep", 2),))
ANNA = [Quota(QuotaKind.USER, "anna", cpus=2)]
GROWS = {
    "takes what is free": (nodes(4, 3), [], [sweep(1)], Decision(resize=(("sweep", 4),))),
    "at most its most": (nodes(4, 3), [], [sweep(1, most=2)], TWO),
    "not more than that": (nodes(4, 2), [], [sweep(2, most=2)], Decision()),
    "whole trials": (nodes(6, 3), [], [sweep(2, each=2)], Decision(resize=(("sweep", 4),))),
    "less than a trial is nothing": (nodes(3, 1), [], [sweep(2, each=2)], Decision()),
    "jobs start first": (nodes(2, 1), [job(priority=10)], [sweep(1)], Decision(start="job", workers=1)),
    "not before a job of its priority": (nodes(4, 1), [job(2, priority=50)], [sweep(1), FIRM, FIRM], Decision()),
    "before one of less": (nodes(4, 1), [job(2, priority=10)], [sweep(1), FIRM, FIRM], TWO),
    "before one that its end alone lets in": (nodes(2, 1), [job(2)], [sweep(1)], TWO),
    "before one that never fits": (nodes(2, 1), [job(9)], [sweep(1)], TWO),
    "the first of several": (
        nodes(4, 1), [], [sweep(1, number=7, name="b"), sweep(2)], Decision(resize=(("sweep", 3),))
    ),
    "not one that is elsewhere": (nodes(2, 1), [], [sweep(1, here=False)], Decision()),
    "not one that ends": (nodes(2, 1), [], [sweep(1, leaving_since=NOW)], Decision()),
    "keeps what nobody wants any more": (nodes(2, 0), [], [sweep(2, granted=1, granted_at=NOW)], TWO),
    "is told once": (nodes(2, 0), [], [sweep(1, granted=2)], Decision()),
}  # fmt: skip


@pytest.mark.parametrize("situation", SHRINKS | WAITS | GROWS)
def test_situation(situation: str) -> None:
    there, queue, running, decision = (SHRINKS | WAITS | GROWS)[situation]
    assert decide(queue, running, there, [], NOW) == decision


@pytest.mark.parametrize(("taken", "workers"), [(0, 2), (1, 2), (3, None)])
def test_grows_within_its_quotas(taken: int, workers: int | None) -> None:
    quota = Quota(QuotaKind.USER, "anna", cpus=taken + (workers or 1))
    others = [Running("other", demand=Demand((taken, taken)), user="anna", here=False)] if taken else []
    found = decide([], [sweep(1, user="anna"), *others], nodes(8, 7), [quota], NOW)
    assert found.resize == ((("sweep", workers),) if workers else ())


def test_who_gives_is_told() -> None:
    def why(*running: Running, needs: int = 1) -> str:
        cluster = Cluster(nodes(4, 0), running)
        found = dict(explain([job(needs)], running, [cluster], [], NOW))["job"]
        assert found.kind is WhyKind.STARTS_NEXT
        return found.message.removeprefix("room is being made for it: ")

    assert why(sweep(4)) == "sweep gives 1 worker back as its trials reach their next rung"
    asked = sweep(4, granted=2, granted_at=NOW)
    assert why(asked) == "sweep gives 2 workers back as its trials reach their next rung"
    assert why(sweep(2), CHEAP, needs=3) == (
        "sweep gives 1 worker back as its trials reach their next rung; cheap saves its state and leaves"
    )


RUNNING = st.lists(
    st.builds(
        lambda name, has, gives, pre, priority: sweep(
            has, name=name, granted=max(1, has - gives), granted_at=NOW, preemptible=pre, priority=priority
        ),
        st.sampled_from("abcd"), st.integers(1, 4), st.integers(0, 2), st.booleans(), st.integers(0, 99),
    ),
    max_size=3, unique_by=lambda one: one.id,
)  # fmt: skip
QUEUE = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 100), st.integers(0, 9)), max_size=3).map(
    lambda rows: [job(needs, priority, number, f"q{n}") for n, (needs, priority, number) in enumerate(rows)]
)


@given(QUEUE, RUNNING, st.integers(0, 3))
def test_whatever_is_asked(queue: list[Waiting], running: list[Running], free: int) -> None:
    taken = sum(one.workers for one in running)
    there = nodes(taken + free, free)
    decision = decide(queue, running, there, [], NOW)
    by_id = {one.id: one for one in running}
    for name, workers in decision.resize:
        one = by_id[name]
        assert 1 <= workers <= one.demand.workers[1]
        assert name not in decision.preempt
    if decision.holder and decision.resize:
        asked = next(one for one in queue if one.id == decision.holder)
        left = there
        for name, workers in decision.resize:
            one = by_id[name]
            assert asked.order < one.order
            left = freed(left, one.demand.with_workers(one.workers - workers))
        for name in decision.preempt:
            left = freed(left, by_id[name].share)
        assert fit(left, asked.demand)
    elif decision.resize:
        ((name, workers),) = decision.resize
        more = workers - by_id[name].workers
        assert more == 0 or fit(there, Demand((more, more)))
        assert not any(fit(there, one.demand) for one in queue)


@given(RUNNING, st.integers(0, 3))
def test_growing_and_shrinking_come_to_rest(running: list[Running], free: int) -> None:
    """Told what was decided, each sweep does it; nobody goes back and forth."""
    taken = sum(one.workers for one in running)
    there = nodes(taken + free, free)
    for _ in range(8):
        decision = decide([], running, there, [], NOW)
        if not decision.resize:
            return
        ((name, workers),) = decision.resize
        one = next(one for one in running if one.id == name)
        there = placed(there, one.demand.with_workers(workers - one.workers))
        done = replace(one, granted=workers, world_size=workers)
        running = [done if other is one else other for other in running]
    raise AssertionError("it does not come to rest")
