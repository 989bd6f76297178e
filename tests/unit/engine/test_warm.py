"""The pool of warm workers, as far as it needs no cluster."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import ray

from epochal.engine import warm
from epochal.engine.warm import WarmPool
from polling import until


def test_an_error_that_nobody_expects_costs_a_round_and_not_the_thread(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rounds: list[BaseException] = []

    def nodes() -> list[dict]:
        rounds.append(KeyError("NodeID") if len(rounds) < 2 else ray.exceptions.RaySystemError("the GCS is away"))
        raise rounds[-1]

    monkeypatch.setattr(ray, "nodes", nodes)
    monkeypatch.setattr(warm, "LOOK_SECONDS", 0.01)
    pool = WarmPool()
    pool.keep(1)
    until(lambda: len(rounds) >= 4, "it tries again")
    pool.close()
    (told,) = [record for record in caplog.records if record.name == warm.__name__]
    assert told.exc_info is not None
    assert told.exc_info[1] is rounds[0]
    assert not pool.is_filling


def test_whoever_makes_way_second_waits_until_the_processes_are_idle() -> None:
    """Otherwise Ray starts others for its tasks, while those that were warmed for them are being let go."""
    pool, begun, idle = WarmPool(), threading.Event(), threading.Event()

    class Round:
        def release(self) -> None:
            begun.set()
            assert idle.wait(5)

    held: Any = Round()
    pool._holding = held
    first, second = threading.Thread(target=pool.make_way), threading.Thread(target=pool.make_way)
    first.start()
    assert begun.wait(5)
    second.start()
    second.join(0.05)
    assert second.is_alive()
    idle.set()
    first.join(5)
    second.join(5)
    assert not first.is_alive()
    assert not second.is_alive()
