"""The server that commands on this machine talk to: its clock, its agents, and what they warn of."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from epochal.client.address import find_address
from epochal.client.client import Client
from epochal.clocks import ADVICE, ahead, beside, is_off
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


def server_clock(seconds: float) -> Check:
    """``seconds``: how far this machine's clock is ahead of the server's."""
    if is_off(seconds):
        return warn("server clock", f"this machine's clock is {beside(seconds, 'the server')}", ADVICE)
    return ok("server clock", "the server's and this machine's show the same")


def look(clock: Callable[[], float] = time.time) -> Iterator[Check]:
    """What the server that this machine knows tells of its agents, and of the time; nothing where it knows none."""
    try:
        address = find_address()
    except UnreachableError:
        return  # no server is known here
    with Client(address.server, address.token) as client:
        asked = clock()
        try:
            found = client.agents()
        except EpochalError as error:
            yield warn("agents", f"{address.server} does not tell: {error.message}", error.hint or "ask who runs it")
            return
        yield server_clock(ahead(client.now(), asked, clock()))
    yield from agents(found)
