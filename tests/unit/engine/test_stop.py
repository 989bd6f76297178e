"""How those who run in a place hear that they are to end."""

from __future__ import annotations

from pathlib import Path

import pytest

from epochal.engine.gang import Stop, _mark


@pytest.mark.parametrize(
    ("graces", "overdue"),
    [((), None), ((None,), None), ((60.0,), None), ((0.0,), 0.0), ((60.0, 0.0), 0.0), ((0.0, 60.0, None), 0.0)],
)
def test_the_grace_that_ends_first_counts_and_the_request_is_heard_once(
    graces: tuple[float | None, ...], overdue: float | None
) -> None:
    stop, heard = Stop(), list[str]()
    with stop.heard_by(lambda: heard.append("requested"), lambda: heard.append("killed")):
        for grace in graces:
            stop.request(grace)
    assert stop.overdue == overdue
    assert heard == ["requested"][: len(graces)]


@pytest.mark.parametrize("before", [True, False])
def test_whoever_comes_late_hears_it_too(before: bool) -> None:
    stop, heard = Stop(), list[str]()
    calls = [stop.request, stop.kill]
    if before:
        for call in calls:
            call()
    with stop.heard_by(lambda: heard.append("requested"), lambda: heard.append("killed")):
        if not before:
            for call in calls:
                call()
        assert heard == ["requested", "killed"]
    stop.kill()
    assert heard == ["requested", "killed"], "it listens no more"


@pytest.mark.parametrize(("writable", "heard"), [(True, []), (False, ["struck"])])
def test_who_cannot_be_told_to_save_is_ended(tmp_path: Path, writable: bool, heard: list[str]) -> None:
    struck: list[str] = []
    marker = tmp_path / "stop" if writable else tmp_path / "missing" / "stop"
    _mark(marker, lambda: struck.append("struck"))
    assert struck == heard
    assert marker.exists() == writable
