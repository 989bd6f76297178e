"""What a stored job spec asks for, however old or odd the spec."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal.ledger.capacity import Demand, Node, fit, freed, placed
from epochal.ledger.demands import columns_of
from epochal.spec.job import Resources
from epochal.spec.sweep import Sweep

GIB = 2**30


def test_of_a_spec_as_it_is_stored() -> None:
    resources = Resources.model_validate(
        {"workers": {"min": 2, "max": 4}, "cpus_per_worker": 2, "gpus_per_worker": 1, "memory_per_worker": "2GiB"}
    )
    assert Demand.of({"resources": resources.model_dump(mode="json")}) == Demand((2, 4), 2.0, 1.0, 2 * GIB)


def test_of_the_spec_s_own_defaults() -> None:
    assert Demand.of({"resources": Resources().model_dump(mode="json")}) == Demand() == Demand.of({"version": 1})


@pytest.mark.parametrize("workers", [None, "many", True, [], {"min": "x"}, {"max": 0}, -3, 0, float("inf"), 1e9])
def test_odd_workers_are_one(workers: object) -> None:
    assert Demand.of({"resources": {"workers": workers}}).workers == (1, 1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["min", "max"]), inner, max_size=2),
)
ODD = st.fixed_dictionaries(
    {},
    optional={
        "resources": JSON
        | st.dictionaries(
            st.sampled_from(["workers", "cpus_per_worker", "gpus_per_worker", "memory_per_worker"]), JSON, max_size=4
        ),
        "limits": JSON | st.dictionaries(st.just("max_pending"), JSON),
        "queue": JSON,
        "preemptible": JSON,
        "sweep": JSON | st.dictionaries(st.sampled_from(["trials", "concurrency"]), JSON),
    },
)


@pytest.mark.parametrize(
    ("sweep", "workers"),
    [
        (None, (2, 2)),
        ({"trials": 8, "concurrency": None}, (2, 16)),
        ({"trials": 8, "concurrency": 3}, (2, 6)),
        ({}, (2, 64)),
        ({"trials": 100_000}, (2, 100_000)),
        ({"trials": "many", "concurrency": -1}, (2, 64)),
    ],
    ids=str,
)
def test_of_a_sweep_is_elastic(sweep: dict | None, workers: tuple[int, int]) -> None:
    spec = {"resources": {"workers": 2}, "sweep": sweep}
    assert Demand.of(spec).workers == workers
    assert columns_of(spec, {})["kind"] == ("train" if sweep is None else "sweep")


def test_of_a_sweep_by_the_spec_s_own_defaults() -> None:
    assert Demand.of({"sweep": {}}).workers[1] == Sweep.model_fields["trials"].default


@given(ODD)
def test_any_document_has_usable_columns(spec: dict) -> None:
    columns = columns_of(spec, {})
    assert 1 <= columns["workers_min"] <= columns["workers_max"] <= 100_000
    assert columns["cpus"] > 0
    assert 0 <= columns["gpus"] <= 100_000
    assert columns["queue"]
    str(Demand.of(spec))


def test_columns_of_a_full_spec() -> None:
    spec = {"queue": "nightly", "preemptible": True, "limits": {"max_pending": "1h30m"}}
    columns = columns_of(spec, {"code": "d1"})
    assert columns["queue"] == "nightly"
    assert columns["preemptible"] is True
    assert columns["max_pending"] == 5400.0
    assert columns["code_digest"] == "d1"


def test_what_is_placed_and_freed_again_leaves_the_nodes_as_they_were() -> None:
    total = {"CPU": 4.0, "GPU": 2.0, "memory": 8.0 * GIB}
    nodes = (Node("a", "a", total, total), Node("b", "b", total, total))
    demand = Demand((3, 3), 2.0, 1.0, GIB)
    taken = placed(nodes, demand)
    assert [one.available["GPU"] for one in taken] == [0.0, 1.0]
    assert fit(taken, demand) == 0
    assert freed(taken, demand) == nodes
