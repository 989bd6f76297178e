"""Whether any cluster could ever hold a job, by what agents tell of their nodes and worker groups. A pure function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from epochal.ledger.capacity import Demand, fits_ever, most_workers, never_fits
from epochal.ledger.values import AgentInfo


def why_never(spec: Mapping[str, Any], agents: Sequence[AgentInfo]) -> str:
    """Why no cluster of an agent that is alive could ever hold the job of this spec, not even with all the nodes that
    its worker groups may have; by the cluster that comes nearest. Empty where one could, and where no agent is alive,
    for nobody knows then."""
    demand, alive = Demand.of(spec), [agent for agent in agents if agent.alive and (agent.nodes or agent.groups)]
    if not alive or any(fits_ever(one.nodes, demand, one.groups) for one in alive):
        return ""
    near = max(alive, key=lambda one: most_workers(one.nodes, demand, one.groups))
    return f"agent {near.name}: {never_fits(near.nodes, demand, near.groups)}"
