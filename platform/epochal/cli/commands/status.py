"""`epochal status`: one job, or how everything stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from epochal.cli import render
from epochal.cli.connection import with_client
from epochal.cli.options import output_option
from epochal.cli.render import Output

if TYPE_CHECKING:
    from epochal.client import Client


@click.command()
@click.argument("job", metavar="[JOB]", required=False)
@with_client
@output_option()
def command(client: Client, job: str | None, output: Output) -> None:
    """Show one job: its state, progress, metrics and attempts, and why it waits.

    Without a JOB: the server, how many jobs are in each state, and the agents with their nodes.
    """
    if job is None:
        _everything(client, output)
    else:
        _one(client, job, output)


def _one(client: Client, ref: str, output: Output) -> None:
    from epochal.cli.job_view import attempt_rows, facts, why_lines
    from epochal.ledger.states import EventKind, JobState

    job = client.job(ref)
    if output is Output.NAME:
        render.document({"id": job.id}, output)
        return
    attempts = client.attempts(job.id)
    events = list(client.events(job.id))
    tracking = [event.message for event in events if event.kind == EventKind.TRACKING]
    resized = [event.message for event in events if event.kind == EventKind.RESIZED and event.epoch == job.epoch]
    why = client.why(job.id) if job.state is JobState.QUEUED else None
    if output is not Output.TABLE:
        detail = {
            "attempts": [one.to_dict() for one in attempts],
            "why": why.to_dict() if why else None,
            "tracking": tracking,
            "resized": resized,
        }
        render.document({**job.to_dict(), **detail}, output)
        return
    newest = {"resized": resized[-1:] if job.state.is_active else [], "MLflow": tracking[-1:]}
    render.document(facts(job, attempts, client.now()) | {name: told[0] for name, told in newest.items() if told})
    if why:
        render.message("\n".join(why_lines(why)))
    if attempts:
        render.text("")
        columns = ["attempt", "outcome", "reason", "workers", "agent", "started", "ran", "message"]
        render.records(attempt_rows(attempts), columns, title="attempts")


def _everything(client: Client, output: Output) -> None:
    from epochal.cli.job_view import agent_row

    agents, overview, who = client.agents(), client.overview(), client.whoami()
    counts = {state: count for state, count in overview["counts"].items() if count}
    facts: dict[str, Any] = {
        "server": client.server,
        "version": overview["version"],
        "user": who["user"],
        "role": who["role"],
        "jobs": counts,
        "tracking": overview["mlflow_url"],
    }
    if output is not Output.TABLE:
        render.document({**facts, "agents": [agent.to_dict() for agent in agents]}, output)
        return
    render.document(facts)
    render.text("")
    rows = [agent_row(agent, client.now()) for agent in agents]
    render.records(rows, ["agent", "alive", "seen", "nodes", "free", "of"], title="agents heard of within a day")
    for agent in agents:
        for told in agent.warnings:
            render.warning(f"agent {agent.name}: {told['found']}; {told['advice']}")
        for group in agent.groups:
            counted = f"{len(group.nodes)} of {group.asked} nodes, {group.most} at most"
            render.message(f"agent {agent.name}, group {group.name}: {'; '.join([counted, *group.waits])}")
