"""How many nodes of each worker group the queue needs, and what `epochal why` says meanwhile: by example."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from epochal.ledger.capacity import Demand, Group, Node, fit, fits_ever
from epochal.ledger.contenders import Cluster, Running, Waiting
from epochal.ledger.explanation import explain
from epochal.ledger.policy import decide
from epochal.ledger.shortage import Shortage, short_of
from epochal.ledger.values import Quota, QuotaKind, Why, WhyKind

CPU = Group("cpu", {"CPU": 4.0, "memory": 8.0 * 2**30}, most=3, asked=0)
GPU = Group("gpu", {"CPU": 8.0, "GPU": 8.0}, most=4, asked=0)


def job(name: str, workers: int = 1, gpus: float = 0.0, step: int = 0, most: int | None = None, **more) -> Waiting:
    demand = Demand((workers, most or workers), 1.0, gpus, None, step)
    return Waiting(name, int(name.strip("abcdefghijklmnopqrstuvwxyz") or 1), demand=demand, **more)


def node(name: str, cpus: float = 4.0, free: float | None = None) -> Node:
    return Node(name, f"host-{name}", {"CPU": cpus}, {"CPU": cpus if free is None else free})


def needed(*queue: Waiting, nodes=(), groups=(CPU, GPU), running=(), quotas=()) -> dict[str, int]:
    cluster = Cluster(tuple(nodes), tuple(running), "a", groups=tuple(groups))
    found = short_of(queue, running, [cluster], quotas)
    return {group: count for group, count in found.needed["a"].items() if count}


def why(*queue: Waiting, nodes=(), groups=(CPU, GPU), running=(), quotas=()) -> dict[str, Why]:
    cluster = Cluster(tuple(nodes), tuple(running), "a", groups=tuple(groups))
    return dict(explain(queue, running, [cluster], quotas, 0.0))


def test_nothing_waits_and_nothing_is_needed() -> None:
    assert needed() == {}
    assert needed(nodes=[node("n1")], groups=[replace(CPU, asked=1, nodes=("n1",))]) == {}


def test_a_group_at_zero_starts_for_a_job_that_fits_it() -> None:
    assert needed(job("a1")) == {"cpu": 1}
    assert needed(job("a1", 9)) == {"cpu": 3}
    assert needed(job("a1", 1, gpus=8)) == {"gpu": 1}
    assert needed(job("a1", 4, gpus=8)) == {"gpu": 4}


def test_jobs_share_the_nodes_that_start_for_them() -> None:
    assert needed(job("a1", 2), job("a2", 2)) == {"cpu": 1}
    assert needed(job("a1", 3), job("a2", 2), job("a3", 3)) == {"cpu": 2}


def test_what_is_there_or_coming_is_not_started_again() -> None:
    coming = replace(CPU, asked=2)
    assert needed(job("a1", 6), groups=[coming]) == {"cpu": 2}
    there = replace(CPU, asked=2, nodes=("n1",))
    assert needed(job("a1", 8), nodes=[node("n1")], groups=[there]) == {"cpu": 2}
    assert needed(job("a1", 4), nodes=[node("n1")], groups=[there]) == {"cpu": 1}, "the one that is there"
    assert needed(job("a1", 4), nodes=[node("n1", free=1)], groups=[there]) == {"cpu": 2}, "it is partly in use"


def test_what_could_never_fit_starts_nothing() -> None:
    assert needed(job("a1", 16, gpus=8)) == {}
    assert needed(job("a1", 5, gpus=8), job("a2", 1)) == {"cpu": 1}
    assert needed(replace(job("a1"), demand=Demand((1, 1), cpus=16.0))) == {}


def test_many_that_cannot_start_keep_no_nodes_from_those_behind_them() -> None:
    never = [job(f"a{number}", 16, gpus=8) for number in range(1, 301)]
    assert needed(*never, job("b301")) == {"cpu": 1}
    over = [job(f"a{number}", user="ada") for number in range(1, 301)]
    quota = Quota(QuotaKind.USER, "ada", 1, None, None)
    assert needed(*over, job("b301", 4), quotas=[quota]) == {"cpu": 2}


def test_sweeps_share_what_a_quota_leaves() -> None:
    quota = Quota(QuotaKind.USER, "ada", None, 8.0, None)
    sweeps = [job(f"a{number}", 1, step=1, most=16, user="ada") for number in (1, 2)]
    assert needed(*sweeps, quotas=[quota]) == {"cpu": 2}


def test_a_job_that_fits_no_group_alone_may_use_two() -> None:
    assert needed(job("a1", 20)) == {"cpu": 3, "gpu": 1}


def test_gpus_are_for_jobs_that_ask_for_some_where_another_group_will_do() -> None:
    assert needed(job("a1"), groups=[GPU, CPU]) == {"cpu": 1}
    assert needed(job("a1"), groups=[GPU]) == {"gpu": 1}


def test_over_quota_starts_nothing() -> None:
    quota = Quota(QuotaKind.USER, "ada", cpus=2)
    assert needed(job("a1", 4, user="ada"), quotas=[quota]) == {}
    assert needed(job("a1", 2, user="ada"), job("a2", 2, user="ada"), quotas=[quota]) == {"cpu": 1}


def test_an_elastic_job_wants_its_least_and_a_sweep_as_many_as_it_may_have() -> None:
    assert needed(job("a1", 2, most=12)) == {"cpu": 1}
    assert needed(job("a1", 1, most=12, step=1)) == {"cpu": 3}
    assert needed(job("a1", 1, most=100, step=1), groups=[CPU]) == {"cpu": 3}
    assert needed(job("a1", 1, most=12, step=1, user="ada"), quotas=[Quota(QuotaKind.USER, "ada", cpus=5)]) == {
        "cpu": 2
    }


def test_a_sweep_that_runs_gets_more_nodes_and_one_that_leaves_does_not() -> None:
    sweep = Running("s1", demand=Demand((1, 8), step=1), world_size=4, granted=4)
    there = replace(CPU, asked=1, nodes=("n1",))
    assert needed(nodes=[node("n1", free=0)], groups=[there], running=[sweep]) == {"cpu": 2}
    leaving = replace(sweep, leaving_since=0.0)
    assert needed(nodes=[node("n1", free=0)], groups=[there], running=[leaving]) == {"cpu": 1}


def test_two_clusters_do_not_start_nodes_for_the_same_job() -> None:
    clusters = [Cluster((), (), name, name, (CPU,)) for name in ("b", "a")]
    found = short_of([job("a1"), job("a2", storage="b")], (), clusters, ())
    assert found.needed == {"a": {"cpu": 1}, "b": {"cpu": 1}}
    assert found.waits == {"a1": ("a", ("cpu",)), "a2": ("b", ("cpu",))}
    free = Cluster((node("n1"),), (), "c")
    assert short_of([job("a1")], (), [*clusters, free], ()) == Shortage({"a": {"cpu": 0}, "b": {"cpu": 0}}, {})


def test_why_names_the_group_and_what_its_pods_say() -> None:
    waits = ("1 of 2 pods: no node takes it: of 10 nodes 10 with less than 8 nvidia.com/gpu free",)
    group = replace(GPU, asked=2, nodes=("g1",), waits=waits)
    busy = Node("g1", "g1", GPU.shape, {"CPU": 0.0, "GPU": 0.0})
    found = why(job("a1", 1, gpus=8), nodes=[busy], groups=[group])["a1"]
    assert found.kind is WhyKind.PROVISIONING
    assert found.message == f"nodes are being started for it: group gpu has 1 of 2 nodes ({waits[0]})"


def test_why_tells_the_smallest_change_that_would_start_it_now() -> None:
    found = why(job("a1", 6), nodes=[node("n1")], groups=[replace(CPU, asked=1, nodes=("n1",))])["a1"]
    assert (found.kind, found.change) == (WhyKind.PROVISIONING, "resources.workers=4")


def test_why_says_that_no_group_could_ever_hold_it() -> None:
    found = why(job("a1", 16, gpus=8))["a1"]
    assert found.kind is WhyKind.NEVER_FITS
    assert found.message.startswith("16 workers with 1 CPU, 8 GPU each can never fit: the cluster has 0 nodes; ")
    assert found.message.endswith("group gpu could have 4 with 8 CPU, 8 GPU each")
    assert found.change == "resources.workers=4"


def test_why_says_that_the_groups_are_taken() -> None:
    found = why(job("a1", 4, gpus=8), job("a2", 1, gpus=8))
    assert [one.kind for one in found.values()] == [WhyKind.PROVISIONING, WhyKind.NO_ROOM_NOW]
    assert "taken, or wanted by jobs before it" in found["a2"].message


def test_a_group_that_could_have_more_changes_nothing_of_the_decision() -> None:
    """The policy gives jobs to nodes that are there: one that waits for others holds nobody back."""
    queue = [job("a1", 1, gpus=8), job("a2", 1)]
    assert decide(queue, (), (node("n1"),), (), 10_000.0).start == "a2"


DEMANDS = st.builds(
    lambda low, more, cpus, gpus: Demand((low, low + more), float(cpus), float(gpus)),
    st.integers(1, 12), st.integers(0, 3), st.integers(1, 5), st.sampled_from([0, 0, 1, 8]),
)  # fmt: skip
QUEUES = st.lists(DEMANDS, max_size=6).map(lambda all_: [Waiting(f"j{n}", n, demand=one) for n, one in enumerate(all_)])
GROUPS = st.tuples(st.integers(0, 3), st.integers(0, 4)).map(
    lambda asked: (replace(CPU, asked=asked[0]), replace(GPU, asked=asked[1]))
)


@given(QUEUES, GROUPS)
def test_what_is_started_is_within_the_bounds_and_enough_for_the_first_that_waits(queue, groups) -> None:
    found = short_of(queue, (), [Cluster((), (), "a", groups=groups)], ())
    assert all(0 <= found.needed["a"][group.name] <= group.most for group in groups)
    first = next((one for one in queue if fits_ever((), one.demand, groups)), None)
    assert (first is None) == (not found.waits)
    if first is not None:
        assert first.id in found.waits
        made = [
            Node(f"{group.name}{n}", "h", group.shape, group.shape)
            for group in groups
            for n in range(found.needed["a"][group.name])
        ]
        assert fit(made, first.demand) > 0
