"""Commands that talk to a server, with a standard output that takes nothing: they do what they do, and say so."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest
from restartable_server import PlayedAgent

from epochal.cli.main import main
from epochal.client import Client
from epochal.ledger.states import JobState
from epochal.ledger.values import Job

Submit = Callable[..., Job]
Lost = Callable[[], tuple[int, str]]

ASKED = [
    ["jobs"], ["jobs", "-o", "json"], ["jobs", "-o", "name"], ["status"], ["status", "JOB"],
    ["status", "JOB", "-o", "yaml"], ["why", "JOB"], ["logs", "JOB"], ["logs", "JOB", "-f"],
    ["logs", "JOB", "-o", "json"], ["events", "JOB"], ["events", "JOB", "-f"], ["config", "show"],
]  # fmt: skip
DONE = {"stop": JobState.STOPPED, "pause": JobState.PAUSED}
STREAMS = {
    "full": (5, "standard output: No space left on device"),
    "closed": (5, "standard output: Bad file descriptor"),
    "gone": (1, ""),
}
"""What happens to standard output: the exit code, and what is said of it."""


@pytest.fixture(params=STREAMS)
def lose_output(request: pytest.FixtureRequest, connected: None, monkeypatch: pytest.MonkeyPatch) -> Lost:
    """Have standard output take nothing from now on; what follows from that."""

    def lost() -> tuple[int, str]:
        stream = None
        if request.param == "full":
            stream = open("/dev/full", "w")  # noqa: SIM115 - at its end it is /dev/null's
        elif request.param == "gone":
            reader, writer = os.pipe()
            os.close(reader)
            stream = open(writer, "w")  # noqa: SIM115
        monkeypatch.setattr(sys, "stdout", stream)
        return STREAMS[request.param]

    return lost


def code_of(*words: str) -> int:
    try:
        return main(list(words))
    except SystemExit as left:  # click's way, where the reader has gone
        return int(left.code or 0)


@pytest.mark.parametrize("words", ASKED, ids=" ".join)
def test_what_is_asked_for_is_missed(
    words: list[str],
    lose_output: Lost,
    submit: Submit,
    agent: PlayedAgent,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = submit("name=unread")
    agent.carry(job.id, "said\n")
    code, said = lose_output()
    assert code_of(*[job.id if word == "JOB" else word for word in words]) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("verb", DONE)
def test_what_is_done_is_done(verb: str, lose_output: Lost, submit: Submit, client: Client) -> None:
    job = submit("name=unread")
    code, _ = lose_output()
    assert code_of(verb, job.id) == code
    assert client.job(job.id).state is DONE[verb]


def test_what_is_queued_again_is_queued(lose_output: Lost, submit: Submit, client: Client) -> None:
    job = client.pause(submit("name=unread").id)
    code, _ = lose_output()
    assert code_of("resume", job.id) == code
    assert client.job(job.id).state is JobState.QUEUED
    client.stop(job.id)
    lose_output()
    assert code_of("retry", job.id) == code
    assert client.jobs(name="unread", limit=1)[0].id != job.id
