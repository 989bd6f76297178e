"""The relay of a worker's output is started again, as soon as the system has a process for it."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from epochal.engine import output
from epochal.engine.output import Output


class Done(BaseException):
    """Ends the thread that goes on for ever."""


def test_a_relay_that_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: list[BaseException] = [OSError(errno.EAGAIN, "no process left"), Done()]

    def start(self: Output) -> None:
        raise outcomes.pop(0)

    monkeypatch.setattr(Output, "_start", start)
    monkeypatch.setattr(output, "_AGAIN_SECONDS", 0.0)
    kept: Any = object.__new__(Output)
    kept._relay = SimpleNamespace(wait=lambda: 0)
    with pytest.raises(Done):
        kept._keep_up()
    assert not outcomes
