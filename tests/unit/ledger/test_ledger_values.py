"""Ids, documents, and values as JSON."""

from __future__ import annotations

import json
import math
import re
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal.errors import UnreachableError
from epochal.ledger import ids
from epochal.ledger.capacity import Node
from epochal.ledger.documents import MESSAGE_LIMIT, digest, encode, text
from epochal.ledger.ids import job_id
from epochal.ledger.json_values import Value
from epochal.ledger.ledger import Ledger
from epochal.ledger.values import Job, Lease, Token, Why, WhyKind

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.text(max_size=100))
def test_id_is_readable_and_fits_a_label(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]*-[0-9a-z]{8}", job_id(name))
    assert len(job_id(name)) <= 63


def test_ids_of_a_name_sort_by_age(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for second in (0, 0.001, 1, 60, 3600, 86_400, 1e7, 1e9):
        monkeypatch.setattr(ids.time, "time", lambda second=second: 1_735_689_600 + second)
        made.append(job_id("digits"))
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_id_of_a_taken_moment_moves_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids.time, "time", lambda: 1_800_000_000.0)
    assert job_id("digits") == job_id("digits")
    assert len({job_id("digits", again=1) for _ in range(200)}) > 20


def test_clock_before_all_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids.time, "time", lambda: 0.0)
    assert job_id("digits") == "digits-00000000"


@given(st.text())
def test_text_can_be_stored(message: str) -> None:
    stored = text(message)
    stored.encode()
    assert "\x00" not in stored
    assert len(stored) <= MESSAGE_LIMIT + 100


@given(JSON)
def test_json_is_valid_and_equal_documents_have_equal_digests(document: object) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    again = json.loads(encode(document), parse_constant=refuse)
    assert digest({"a": document, "b": 1}) == digest({"b": 1, "a": again})


def test_different_documents_have_different_digests() -> None:
    documents = [{"a": 1}, {"a": "1"}, {"a": [1]}, {"b": 1}, {"a": None}, {"a": math.inf}, {}]
    assert len({digest(document) for document in documents}) == len(documents)


def test_values_print_as_json() -> None:
    with Ledger.open("sqlite://") as ledger:
        ledger.submit({"version": 1}, name="digits", key="k")
        lease = ledger.lease("agent", 60)
        assert lease is not None
        printed = json.loads(json.dumps(lease.to_dict()))
        assert printed["job"]["state"] == "STARTING"
        assert printed["job"]["spec"] == {"version": 1}
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", printed["job"]["submitted_at"])
        assert printed["job"]["ended_at"] is None
        ledger.running(lease, world_size=2)
        (attempt,) = ledger.attempts(lease.job_id)
        assert attempt.to_dict()["outcome"] is None
        event = json.loads(json.dumps(ledger.events(lease.job_id)[-1].to_dict()))
        assert (event["kind"], event["previous"], event["state"]) == ("running", "STARTING", "RUNNING")
        assert event["at"].endswith("Z")


def test_values_come_back_from_json() -> None:
    """What a server sends, a client reads: equal, but for times, which travel to the millisecond."""
    with Ledger.open("sqlite://") as ledger:
        node = Node("n", "h", {"CPU": 2.0}, {"CPU": 1.5})
        agent = ledger.heartbeat("a", "1", [node], [("j", 1)], {"warm": 2})
        ledger.submit({"version": 1, "preemptible": True}, name="waits", key="k")
        ledger.submit({"version": 1, "queue": "fast"}, name="runs", priority=90)
        lease = ledger.lease("a/1", 60)
        assert lease is not None
        ledger.running(lease, world_size=1)
        job = ledger.request_stop(lease.job_id, "enough")
        values: list[Value] = [
            agent, lease, job, *ledger.attempts(job.id), *ledger.events(job.id), *ledger.queue(),
            ledger.why(job.id), ledger.create_token("anna", "admin", ttl_seconds=60)[0],
            ledger.set_quota("user", "anna", cpus=1.5), node,
        ]  # fmt: skip
    assert {type(value).__name__ for value in values} == {
        "AgentInfo", "Lease", "Job", "Attempt", "Event", "QueueEntry", "Why", "Token", "Quota", "Node"
    }  # fmt: skip
    for value in values:
        document = json.loads(json.dumps(value.to_dict()))
        again = type(value).from_dict(document)
        assert again.to_dict() == value.to_dict()
        assert [type(getattr(again, one.name)) for one in fields(again)] == [
            type(getattr(value, one.name)) for one in fields(value)
        ] or isinstance(value, Job | Lease)  # type: ignore[arg-type]


def test_value_of_another_version_is_read_as_far_as_it_is_known() -> None:
    why = Why(WhyKind.NO_ROOM_NOW, "no room")
    assert Why.from_dict({**why.to_dict(), "mood": "good"}) == why
    assert Why.from_dict({"kind": "NO_ROOM_NOW", "message": "no room"}) == why


@pytest.mark.parametrize("document", [{}, {"kind": "NO_ROOM_NOW"}, {"kind": "MOODY", "message": ""}])
def test_what_is_no_such_value_is_refused(document: dict[str, str]) -> None:
    with pytest.raises(UnreachableError, match="it is not a Why"):
        Why.from_dict(document)


def test_a_time_that_is_no_text_is_refused() -> None:
    with pytest.raises(UnreachableError, match="it is not a Token"):
        Token.from_dict({"id": "a", "user": "anna", "role": "user", "name": "", "created_at": 5, "expires_at": None})
