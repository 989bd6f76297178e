"""The agents of the server that commands on this machine talk to, and what they warn of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from epochal.client.address import find_address
from epochal.client.client import Client
from epochal.doctor.check import Check, ok, warn
from epochal.errors import EpochalError, UnreachableError, some
from epochal.ledger.values import AgentInfo


def agents(found: Sequence[AgentInfo]) -> Iterator[Check]:
    alive = [agent for agent in found if agent.alive]
    for agent in alive:
        for told in agent.warnings:
            yield warn(f"agent {agent.name}", told["found"], told["advice"])
    names = some([agent.name for agent in alive]) if alive else "none: `epochal agent` starts one"
    yield ok("agents", f"alive: {names}")


def look() -> Iterator[Check]:
    try:
        address = find_address()
    except UnreachableError:
        return  # no server is known here
    try:
        found = Client(address.server, address.token).agents()
    except EpochalError as error:
        yield warn("agents", f"{address.server} does not tell: {error.message}", error.hint or "ask who runs it")
        return
    yield from agents(found)
