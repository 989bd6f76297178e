"""Agents, tokens, quotas and the database itself: on every database."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from ledger_steps import SPEC, running, submit
from sqlalchemy import text

from epochal.errors import ConflictError, NotFoundError, UsageError
from epochal.ledger import agents
from epochal.ledger.capacity import Group, Node
from epochal.ledger.database import Database
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import EventKind, JobState, Outcome, Reason
from epochal.ledger.values import Quota, QuotaKind, Role, WhyKind

NODE = Node("n1", "host-1", {"CPU": 4.0}, {"CPU": 1.0})


class TestAgents:
    def test_heartbeat_is_what_agents_shows(self, ledger: Ledger) -> None:
        told = ledger.heartbeat("a", "1", [NODE], [("job", 3)], {"ray": "2.60"})
        assert (told.name, told.incarnation, told.owner, told.alive) == ("a", "1", "a/1", True)
        assert (told.nodes, told.held, told.detail) == ((NODE,), (("job", 3),), {"ray": "2.60"})
        assert ledger.agents() == [told]
        again = ledger.heartbeat("a", "1", [], [], {})
        assert again.started_at == told.started_at
        assert again.seen_at >= told.seen_at
        assert again.nodes == ()

    def test_one_not_heard_of_for_long_is_not_alive(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        ledger.heartbeat("a", "1", [NODE], [], {})
        submit(ledger)
        monkeypatch.setattr(agents, "ALIVE_SECONDS", 0.0)
        time.sleep(0.01)
        assert [agent.alive for agent in ledger.agents()] == [False]
        assert ledger.why("digits-cnn").kind == "NO_AGENT"

    def test_one_not_heard_of_for_a_day_is_not_listed(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        ledger.heartbeat("a", "1", [NODE], [], {})
        monkeypatch.setattr(agents, "_LISTED_SECONDS", 0)
        assert ledger.agents() == []
        monkeypatch.setattr(agents, "_LISTED_SECONDS", 3600)
        ledger.heartbeat("a", "1", [NODE], [], {})
        assert [agent.name for agent in ledger.agents()] == ["a"]

    def test_new_incarnation_ends_the_leases_of_the_former_at_once(self, ledger: Ledger) -> None:
        ledger.heartbeat("a", "1", [NODE], [], {})
        ledger.heartbeat("a-b", "1", [NODE], [], {})
        job, other, stopping = submit(ledger), submit(ledger), submit(ledger)
        held, theirs, last = (
            ledger.lease(owner, 60, one.id) for owner, one in (("a/1", job), ("a-b/1", other), ("a/1", stopping))
        )
        assert held is not None
        assert theirs is not None
        assert last is not None
        ledger.running(held, world_size=2)
        ledger.request_stop(stopping.id)

        ledger.heartbeat("a", "2", [NODE], [], {})
        assert ledger.job(job.id).state is JobState.QUEUED
        assert ledger.job(stopping.id).state is JobState.STOPPED
        assert ledger.job(other.id).state is JobState.STARTING, "a-b is another agent"
        (attempt,) = ledger.attempts(job.id)
        assert (attempt.outcome, attempt.reason) == (Outcome.INTERRUPTED, Reason.INTERRUPTED)
        assert attempt.message == "the agent a was started again"
        with pytest.raises(ConflictError):
            ledger.renew(held, 60)
        assert ledger.lease("a/2", 60, job.id) is not None

    def test_former_incarnation_is_refused(self, ledger: Ledger) -> None:
        """Else two agents of one name would end each other's leases in turn."""
        ledger.heartbeat("a", "1", [NODE], [], {})
        ledger.heartbeat("a", "2", [NODE], [], {})
        submit(ledger)
        with pytest.raises(ConflictError, match="a/1 was replaced by a/2"):
            ledger.heartbeat("a", "1", [NODE], [], {})
        with pytest.raises(ConflictError, match="a/1 was replaced by a/2"):
            ledger.lease("a/1", 60)
        assert ledger.lease("a/2", 60) is not None

    @pytest.mark.parametrize(("name", "incarnation"), [("", "1"), ("a/b", "1"), ("a", "")])
    def test_names_that_would_be_mistaken(self, ledger: Ledger, name: str, incarnation: str) -> None:
        with pytest.raises(UsageError):
            ledger.heartbeat(name, incarnation, [], [], {})


class TestTokens:
    def test_secret_is_shown_once_and_opens(self, ledger: Ledger) -> None:
        token, secret = ledger.create_token("anna", "user", name="laptop")
        assert re.fullmatch(r"ep_[A-Za-z0-9_-]{43}", secret)
        assert (token.user, token.role, token.name, token.expires_at) == ("anna", Role.USER, "laptop", None)
        assert ledger.token(secret) == token
        assert ledger.tokens() == [token]

    @pytest.mark.parametrize("wrong", ["", "ep_", "ep_x", "\x00", "\ud800", "é" * 10_000])
    def test_wrong_secret_opens_nothing(self, ledger: Ledger, wrong: str) -> None:
        ledger.create_token("anna", "user")
        assert ledger.token(wrong) is None

    def test_revoked_token_opens_nothing(self, ledger: Ledger) -> None:
        token, secret = ledger.create_token("anna", Role.ADMIN)
        _, other = ledger.create_token("anna", Role.ADMIN)
        revoked = ledger.revoke_token(token.id)
        assert revoked.revoked_at is not None
        assert ledger.token(secret) is None
        assert ledger.token(other) is not None
        assert ledger.revoke_token(token.id) == revoked, "again changes nothing"
        with pytest.raises(NotFoundError):
            ledger.revoke_token("nothing")

    def test_expired_token_opens_nothing(self, ledger: Ledger) -> None:
        token, secret = ledger.create_token("anna", "agent", ttl_seconds=0.02)
        assert token.expires_at is not None
        time.sleep(0.05)
        assert ledger.token(secret) is None
        _, lasting = ledger.create_token("anna", "agent", ttl_seconds=60)
        assert ledger.token(lasting) is not None

    def test_what_makes_no_sense_is_refused(self, ledger: Ledger) -> None:
        with pytest.raises(UsageError) as caught:
            ledger.create_token("anna", "root")
        assert caught.value.hint == "known: viewer, user, admin, agent"
        with pytest.raises(UsageError):
            ledger.create_token("", "user")
        with pytest.raises(UsageError):
            ledger.create_token("anna", "user", ttl_seconds=0)

    def test_no_secret_is_stored(self, ledger: Ledger, ledger_url: str) -> None:
        _, secret = ledger.create_token("anna", "user")
        database = Database(ledger_url)
        with database.read() as connection:
            rows = connection.execute(text("SELECT * FROM tokens")).all()
        database.close()
        assert secret not in repr(rows)
        assert secret.removeprefix("ep_") not in repr(rows)


class TestQuotas:
    def test_set_replace_delete(self, ledger: Ledger) -> None:
        assert ledger.quotas() == []
        quota = ledger.set_quota("user", "anna", jobs=2, cpus=4)
        assert quota == Quota(QuotaKind.USER, "anna", 2, 4, None)
        everyone = ledger.set_quota(QuotaKind.USER, "*", gpus=1)
        nightly = ledger.set_quota("queue", "nightly", jobs=0)
        assert ledger.quotas() == [nightly, everyone, quota]
        less = ledger.set_quota("user", "anna", jobs=1)
        assert less in ledger.quotas()
        assert quota not in ledger.quotas()
        ledger.delete_quota("user", "anna")
        assert ledger.quotas() == [nightly, everyone]
        with pytest.raises(NotFoundError):
            ledger.delete_quota("user", "anna")

    def test_what_makes_no_sense_is_refused(self, ledger: Ledger) -> None:
        with pytest.raises(UsageError, match="no quotas of a 'team'"):
            ledger.set_quota("team", "a")
        with pytest.raises(UsageError):
            ledger.set_quota("user", "", jobs=1)
        with pytest.raises(UsageError):
            ledger.set_quota("user", "anna", cpus=-1)


class TestHousekeeping:
    def test_ping(self, ledger: Ledger) -> None:
        ledger.ping()

    def test_news_names_the_jobs_of_new_events(self, ledger: Ledger) -> None:
        first = ledger.news(None)
        assert (first.jobs, first.missed) == (frozenset(), True), "whoever has not looked may have missed anything"
        lease, other = running(ledger), submit(ledger)
        told = ledger.news(first.seen)
        assert (told.jobs, told.missed) == ({lease.job_id, other.id}, False)
        ledger.renew(lease, 60)
        assert ledger.news(told.seen).jobs == frozenset()
        ledger.note(lease, EventKind.WAITING)
        assert ledger.news(told.seen).jobs == {lease.job_id}

    def test_news_tells_when_there_were_too_many(self, ledger: Ledger) -> None:
        lease = running(ledger)
        seen = ledger.news(None).seen
        for _ in range(300):
            ledger.note(lease, EventKind.WAITING)
        assert ledger.news(seen).missed
        assert not ledger.news(ledger.news(seen).seen).missed

    def test_news_tells_who_may_start_a_job(self, ledger: Ledger) -> None:
        def told(change: Callable[[], object]) -> tuple[bool, frozenset[str]]:
            seen = ledger.news(None).seen
            change()
            news = ledger.news(seen)
            return news.queued, news.agents

        job = submit(ledger)
        assert told(lambda: submit(ledger)) == (True, frozenset())
        ledger.heartbeat("near", "1", [NODE], [], {})
        lease = ledger.lease("near/1", 60)
        assert lease is not None
        assert told(lambda: ledger.note(lease, EventKind.WAITING)) == (False, frozenset())
        assert told(lambda: ledger.running(lease, 1)) == (False, frozenset()), "its share is known since it was leased"
        assert told(lambda: ledger.request_pause(job.id)) == (False, frozenset())
        assert told(lambda: ledger.pause(lease)) == (False, {"near"})
        assert told(lambda: ledger.resume(job.id)) == (True, frozenset())
        assert told(lambda: ledger.request_stop(job.id)) == (True, frozenset()), "nobody waits behind it any more"
        ledger.set_quota("user", "*", jobs=1)
        again = ledger.lease("near/1", 60)
        assert again is not None
        ledger.running(again, 1)
        ended = told(lambda: ledger.finish(again, JobState.SUCCEEDED, Reason.COMPLETED))
        assert ended == (True, {"near"}), "another agent may start what the quota kept waiting"
        elastic = ledger.submit({"version": 1, "resources": {"workers": {"min": 1, "max": 4}}}, name="elastic")
        fewer = ledger.lease("near/1", 60, elastic.id)
        assert fewer is not None
        assert told(lambda: ledger.running(fewer, 1)) == (True, {"near"}), "it has fewer workers than it might"

    def test_news_has_an_event_that_comes_to_light_after_a_later_one(self, ledger: Ledger, ledger_url: str) -> None:
        """As on PostgreSQL, which numbers events before they are committed."""
        job = submit(ledger)
        for _ in range(3):
            ledger.note(job.id, EventKind.WAITING)
        database = Database(ledger_url)
        with database.write() as connection:
            columns = "job_id, epoch, at, kind, previous, state, message, detail"
            connection.execute(text("DELETE FROM events WHERE id = 3"))
        before = ledger.news(None)
        with database.write() as connection:
            late = f"INSERT INTO events (id, {columns}) SELECT 3, {columns} FROM events WHERE id = 2"
            connection.execute(text(late))
        database.close()
        assert ledger.news(before.seen).jobs == {job.id}


GROUP = Group("gpu", {"CPU": 8.0, "GPU": 8.0}, most=2, asked=0)


def test_an_agent_tells_of_its_worker_groups_and_hears_how_many_nodes_are_needed(ledger: Ledger) -> None:
    ledger.heartbeat("a", "1", [], [], {})
    assert ledger.provision("a/1", [GROUP]) == {"gpu": 0}
    (agent,) = ledger.agents()
    assert agent.groups == (GROUP,)
    job = ledger.submit({**SPEC, "resources": {"workers": 2, "gpus_per_worker": 8}}, name="wide")
    assert ledger.provision("a/1", [GROUP]) == {"gpu": 2}
    starting = replace(GROUP, asked=2, waits=("2 of 2 pods: no node takes it",))
    assert ledger.provision("a/1", [starting]) == {"gpu": 2}
    why = ledger.why(job.id)
    assert (why.kind, "group gpu has 0 of 2 nodes (2 of 2 pods: no node takes it)" in why.message) == (
        WhyKind.PROVISIONING, True,
    )  # fmt: skip
    assert ledger.lease("a/1", 60) is None
    nodes = [Node(name, name, GROUP.shape, GROUP.shape) for name in ("g1", "g2")]
    ledger.heartbeat("a", "1", nodes, [], {})
    ledger.provision("a/1", [replace(starting, nodes=("g1", "g2"), waits=())])
    lease = ledger.lease("a/1", 60)
    assert lease is not None
    assert ledger.provision("a/1", [replace(starting, nodes=("g1", "g2"), waits=())]) == {"gpu": 2}, "they have work"
    never = ledger.submit({**SPEC, "resources": {"workers": 3, "gpus_per_worker": 8}}, name="wider")
    assert ledger.why(never.id).kind is WhyKind.NEVER_FITS


def test_worker_groups_are_of_the_incarnation_that_has_told_them(ledger: Ledger) -> None:
    with pytest.raises(ConflictError, match="nothing is known of the agent"):
        ledger.provision("a/1", [GROUP])
    ledger.heartbeat("a", "1", [], [], {})
    ledger.provision("a/1", [GROUP])
    ledger.heartbeat("a", "1", [NODE], [], {})
    assert ledger.agents()[0].groups == (GROUP,), "heartbeats leave them"
    assert ledger.heartbeat("a", "2", [], [], {}).groups == ()
    with pytest.raises(ConflictError, match="was replaced"):
        ledger.provision("a/1", [GROUP])
    assert ledger.agents()[0].groups == ()


def test_a_node_that_is_lost_may_be_made_anew_also_before_its_group_is_told_of_again(ledger: Ledger) -> None:
    one, other = (Node(name, name, GROUP.shape, GROUP.shape) for name in ("g1", "g2"))
    ledger.heartbeat("a", "1", [one, other], [], {})
    ledger.provision("a/1", [replace(GROUP, asked=2, nodes=("g1", "g2"))])
    job = ledger.submit({**SPEC, "resources": {"workers": 2, "gpus_per_worker": 8}}, name="wide")
    ledger.heartbeat("a", "1", [one], [], {})
    why = ledger.why(job.id)
    assert (why.kind, why.message) == (
        WhyKind.PROVISIONING, "nodes are being started for it: group gpu has 1 of 2 nodes",
    )  # fmt: skip
    assert ledger.agents()[0].groups[0].nodes == ("g1",)
