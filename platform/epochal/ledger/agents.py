"""Agents: what they tell of themselves, and what becomes of the leases of one that was started again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, insert, select, update

from epochal.errors import ConflictError, UsageError
from epochal.ledger.capacity import Group, Node
from epochal.ledger.database import Database, one_at_a_time
from epochal.ledger.lease_operations import lose_lease
from epochal.ledger.states import ACTIVE, JobState
from epochal.ledger.tables import agents, jobs, now
from epochal.ledger.values import LEASE_SECONDS, AgentInfo, HeldShare

ALIVE_SECONDS = LEASE_SECONDS
"""An agent that was not heard of for longer counts as gone, as do its leases."""

_LISTED_SECONDS = 24 * 3600.0

_REMEMBERED = 20
"""Former incarnations of an agent that are known as such."""


class AgentRegister:
    """The agents that the ledger has heard of."""

    _database: Database

    def heartbeat(
        self,
        name: str,
        incarnation: str,
        nodes: Sequence[Node],
        held: Sequence[HeldShare],
        detail: Mapping[str, Any],
        storage: str | None = None,
    ) -> AgentInfo:
        """Tell that an agent is alive, what its nodes have, and what of that is in use.

        The first one of a new incarnation ends the leases of the former at once: their attempts are INTERRUPTED, and
        the jobs queue again, or become what they were asked to be.

        Args:
            held: what is already missing from what ``nodes`` have available.
            storage: the id of the storage that its checkpoints are in.

        Raises:
            ConflictError: another incarnation has taken this one's place.
            UsageError: a name or incarnation that is empty, or a name with a slash.
        """
        if not name or "/" in name or not incarnation:
            raise UsageError(f"an agent cannot be named {name!r}", "give a name without a slash")
        told = {
            "nodes": [node.to_dict() for node in nodes],
            "held": [list(one) for one in held],
            "detail": dict(detail),
            "storage": storage,
        }
        seen = {"agent": name, "this": incarnation, **told}
        with self._database.write_once() as connection:
            if row := connection.execute(_SEEN, seen).first():
                return to_agent(row)
        with self._database.write() as connection:
            known = _known(connection, name)
            if known is None or known.incarnation != incarnation:
                new = {**told, "incarnation": incarnation, "started_at": now(), "seen_at": now(), "groups": []}
                if known is None:
                    connection.execute(insert(agents).values({**new, "name": name, "replaced": []}))
                else:
                    _refuse_replaced(known, incarnation)
                    replaced = [*known.replaced, known.incarnation][-_REMEMBERED:]
                    this = update(agents).where(agents.c.name == name)
                    connection.execute(this.values({**new, "replaced": replaced}))
                _end_leases_of_former(connection, name, incarnation)
            return to_agent(connection.execute(_SEEN, seen).one())

    def agents(self) -> list[AgentInfo]:
        """Those that were heard of within the last day, by name."""
        with self._database.read() as connection:
            return all_agents(connection)


def all_agents(connection: Connection) -> list[AgentInfo]:
    recent = agents.c.seen_at > now() - _LISTED_SECONDS
    return [to_agent(row) for row in connection.execute(select(agents, _alive()).where(recent).order_by(agents.c.name))]


def agent_row(connection: Connection, owner: str, query: Select[Any], asked: Mapping[str, Any]) -> Row[Any] | None:
    """The row by ``query``, ``AGENT`` perhaps with more columns, of the agent that leases as ``owner``
    (``name/incarnation``); None if its heartbeats are not known.

    Raises:
        ConflictError: another incarnation has taken its place.
    """
    name, _, incarnation = owner.partition("/")
    row = connection.execute(query, {"agent": name, **asked}).first()
    if row is None or row.incarnation == incarnation:
        return row
    _refuse_replaced(row, incarnation)
    return None


def to_agent(row: Row[Any]) -> AgentInfo:
    values = {name: value for name, value in row._mapping.items() if name in _FIELDS}
    values["nodes"] = tuple(Node(node["id"], node["host"], node["total"], node["available"]) for node in row.nodes)
    values["groups"] = tuple(Group.from_dict(one).among(values["nodes"]) for one in row.groups)
    values["held"] = tuple(tuple(one) for one in row.held)
    values["alive"] = bool(row.alive)
    return AgentInfo(**values)


def _alive() -> ColumnElement[bool]:
    return (agents.c.seen_at > now() - ALIVE_SECONDS).label("alive")


_FIELDS = {one.name for one in fields(AgentInfo)}
_THIS = agents.c.name == bindparam("agent")
AGENT = select(agents, _alive()).where(_THIS)
_LOCKED = select(agents).where(_THIS).with_for_update()
_SEEN = (
    update(agents)
    .where(_THIS, agents.c.incarnation == bindparam("this"))
    .values(seen_at=now())
    .returning(agents, _alive())
)
"""Made once, as they are asked for all the time."""


def _known(connection: Connection, name: str) -> Row[Any] | None:
    """The agent's row, which nobody else changes, or adds, before this transaction ends."""
    known = connection.execute(_LOCKED, {"agent": name}).first()
    if known is None:  # there is no row to lock yet: of two first heartbeats one would fail to add it
        one_at_a_time(connection)
        known = connection.execute(_LOCKED, {"agent": name}).first()
    return known


def _refuse_replaced(known: Row[Any], incarnation: str) -> None:
    if incarnation in known.replaced:
        message = f"the agent {known.name}/{incarnation} was replaced by {known.name}/{known.incarnation}"
        raise ConflictError(message, "end it: two agents need two names")


def _end_leases_of_former(connection: Connection, name: str, incarnation: str) -> None:
    owner = f"{name}/{incarnation}"
    theirs = jobs.c.owner.startswith(f"{name}/", autoescape=True) & (jobs.c.owner != owner)
    message = f"the agent {name} was started again"
    held = select(jobs.c.id).where(theirs, jobs.c.state.in_(ACTIVE)).order_by(jobs.c.id)
    for identity in connection.scalars(held).all():
        lose_lease(connection, identity, theirs, JobState.QUEUED, message)
