"""What a job is told of a node whose raylet ends idle workers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from epochal.agent.program import cold_starts
from epochal.engine.warm import WarmPool


@pytest.mark.parametrize(("idle", "told"), [({}, 1), ({7: "a"}, 1), ({7: "a", 8: "b"}, 0)], ids=["none", "few", "all"])
def test_told_where_the_node_has_too_few(idle: dict[int, str], told: int) -> None:
    pool = WarmPool()
    pool._wasteful["far"] = "10.0.0.5"
    pool._idle["far"] = idle
    place: Any = SimpleNamespace(connection=SimpleNamespace(warm=pool), workers_by_node={"near": 1, "far": 2})
    assert [text.startswith("node 10.0.0.5 does not keep idle workers") for text in cold_starts(place)] == [True] * told
