"""Agents: heartbeats, and the next job to run."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from epochal import names
from epochal.ledger.capacity import Group, Node
from epochal.ledger.values import AgentInfo, Lease
from epochal.server.auth import AgentRole, Reader, require_agent
from epochal.server.error_responses import answer
from epochal.server.notifier import QUEUE, room_of
from epochal.server.openapi import answers
from epochal.server.requests import LeaseRoute
from epochal.server.schemas import AGENTS, NEEDED, Groups, Heartbeat, LeaseRequest
from epochal.server.services import Deps

router = APIRouter(route_class=LeaseRoute, tags=["agents"])

Name = Annotated[str, Path(pattern=names.AGENT)]


@router.get("/agents", responses=answers(AGENTS))
def agents(_who: Reader, services: Deps) -> Response:
    """The agents that were heard of within a day, and their nodes."""
    return answer({"agents": [agent.to_dict() for agent in services.ledger.agents()]})


@router.put("/agents/{name}", responses=answers(AgentInfo, 409, 413))
def heartbeat(name: Name, body: Heartbeat, who: AgentRole, services: Deps) -> Response:
    """Tell that an agent is alive. A new incarnation ends the leases of the one before."""
    require_agent(name, who)
    nodes = tuple(Node(**node.model_dump()) for node in body.nodes)
    agent = services.ledger.heartbeat(name, body.incarnation, nodes, tuple(body.held), body.detail, body.storage)
    services.notifier.heard(agent)
    return answer(agent.to_dict())


@router.put("/agents/{name}/groups", responses=answers(NEEDED, 409, 413))
def groups(name: Name, body: Groups, who: AgentRole, services: Deps) -> Response:
    """Tell what worker groups the agent's cluster has, and could have; of how many nodes of each the queue, and what
    runs, could make use."""
    require_agent(name, who)
    told = [Group.from_dict(group.model_dump()) for group in body.groups]
    return answer({"needed": services.ledger.provision(f"{name}/{body.incarnation}", told)})


@router.post(
    "/agents/{name}/lease",
    responses={**answers(Lease, 404, 409, 413), 204: {"description": "There was no job to run."}},
)
async def lease(name: Name, body: LeaseRequest, request: Request, who: AgentRole, services: Deps) -> Response:
    """The job to run next by the queue's policy; waits for one up to `wait` seconds."""
    require_agent(name, who)
    owner = f"{name}/{body.incarnation}"

    async def look() -> Lease | None:
        return await services.decision_threads.run(lambda: services.ledger.lease(owner, body.ttl, secret=body.secret))

    found = await services.notifier.poll(
        [QUEUE, room_of(name)], look, lambda seen: seen is not None, body.wait, request.is_disconnected
    )
    if found is None:
        return Response(status_code=204)
    services.metrics.leased(found.job.waited_seconds)
    services.notifier.changed()
    return answer(found.to_dict())
