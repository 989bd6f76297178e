"""One server process with 100 agents, 10,000 queued jobs, 1,000 followers: its decisions, renewals, and processor."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median, quantiles

import psutil
from accept import server
from contender import workspace
from crowd import JOB_SECONDS, Agent, Seen, ask_why, follow
from measure import Promise, Section, interleave

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from sqlalchemy import insert, select

from epochal.ledger.ledger import Ledger
from epochal.ledger.states import Outcome
from epochal.ledger.tables import attempts, documents, events, jobs
from epochal.ledger.values import Role
from postgres import Postgres, binaries

AGENTS, QUEUED, FOLLOWERS = 100, 10_000, 1_000
SETTLING, MEASURED = 45.0, 60.0
KINDS = 40


def measure(rounds: int, quick: bool) -> Section:
    counts = (10, 1_000, 100) if quick else (AGENTS, QUEUED, FOLLOWERS)
    databases = ("sqlite", *(["postgresql"] if binaries() else []))
    with workspace() as (_, environment):
        raw = interleave(min(rounds, 2), {name: partial(_measured, name, environment, *counts) for name in databases})
    promises = []
    for name in databases:
        promises += [
            Promise(f"{name}: lease decision, p95", f"{name}: lease decision, p95", limit=0.05),
            Promise(f"{name}: lease, from telling of room, p95", f"{name}: room to lease, p95"),
            Promise(f"{name}: leases lost", f"{name}: leases lost", limit=0),
            Promise(f"{name}: cores of the server", f"{name}: cores", limit=0.95),
            Promise(f"{name}: renewal, p95", f"{name}: renew, p95"),
            Promise(f"{name}: why the last of them waits, p95", f"{name}: why, p95"),
            Promise(f"{name}: an event reaches its followers, p95", f"{name}: follow, p95"),
        ]
    promises = [one for one in promises if one.ours in raw]
    note = (
        f"{counts[0]} agents, {counts[1]} jobs queued in {KINDS} kinds, {counts[2]} followers, all in one process; "
        f"jobs of {JOB_SECONDS:g} s on average; "
        f"measured for {MEASURED:g} s, once all had begun for {SETTLING:g} s; seconds as the client sees them; a "
        "lease decision from the question, or the answer to the heartbeat that told of more room, if that came later"
    )
    return Section("scale", "seconds", raw, promises, [note])


def _measured(
    database: str, environment: dict[str, str], agents: int, queued: int, followers: int
) -> Mapping[str, float]:
    with tempfile.TemporaryDirectory() as folder, _ledger_url(database, Path(folder)) as url:
        with Ledger.open(url) as ledger:
            waiting = _fill(ledger, queued)
            tokens = {
                f"agent-{number}": ledger.create_token(f"agent-{number}", Role.AGENT)[1] for number in range(agents)
            }
        with server(environment, Path(folder), url) as (address, token, process):
            seen, cores = asyncio.run(_crowd(f"http://{address}", token, tokens, waiting, followers, process.pid))
        with Ledger.open(url) as ledger, ledger._database.read() as connection:
            lost = connection.scalars(select(attempts.c.epoch).where(attempts.c.outcome == Outcome.INTERRUPTED)).all()
    figures = {"leases lost": float(len(lost)), "cores": cores, "refused": float(sum(seen.wrong.values()))}
    for name, took in seen.took.items():
        if len(took) < 2:
            continue
        figures |= {f"{name}, p50": median(took), f"{name}, p95": quantiles(took, n=20, method="inclusive")[-1]}
        figures[f"{name}, a second"] = len(took) / MEASURED
    return {f"{database}: {name}": value for name, value in sorted(figures.items())}


async def _crowd(
    url: str, token: str, tokens: Mapping[str, str], waiting: list[str], followers: int, pid: int
) -> tuple[Seen, float]:
    seen, process = Seen(), psutil.Process(pid)
    crowd = [asyncio.create_task(Agent(url, name, secret, seen).run()) for name, secret in tokens.items()]
    crowd += [asyncio.create_task(follow(url, token, job_id, seen)) for job_id in waiting[:followers]]
    crowd.append(asyncio.create_task(ask_why(url, token, waiting[-1], seen)))
    await asyncio.sleep(SETTLING)
    seen.clear()
    before = process.cpu_times()
    await asyncio.sleep(MEASURED)
    after = process.cpu_times()
    for task in crowd:
        if task.done():
            task.result()  # a follower has seen its job's end, or something has failed
        task.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)
    return seen, (after.user + after.system - before.user - before.system) / MEASURED


def _fill(ledger: Ledger, queued: int) -> list[str]:
    """The ids of that many queued jobs, in their order: copies of a few that were submitted."""
    kinds = [_submit(ledger, number) for number in range(KINDS)]
    made = [(kinds[number % KINDS], f"{kinds[number % KINDS]}-{number}") for number in range(queued - KINDS)]
    with ledger._database.write() as connection:
        for table, of, made_up in (
            (jobs, "id", ("number", *(column.name for column in jobs.c if column.computed is not None))),
            (documents, "job_id", ()),
            (events, "job_id", ("id",)),
        ):
            rows = {
                row._mapping[of]: {name: value for name, value in row._mapping.items() if name not in made_up}
                for row in connection.execute(select(table))
            }
            connection.execute(insert(table), [{**rows[kind], of: identity} for kind, identity in made])
        return list(connection.scalars(select(jobs.c.id).order_by(jobs.c.number)))


def _submit(ledger: Ledger, number: int) -> str:
    resources = {"workers": 1 + number % 8, "cpus_per_worker": 1 + number % 2}
    spec = {"version": 1, "resources": resources, "data": {"name": "digits", "params": {"about": "y" * 2000}}}
    return ledger.submit(spec, name="waits", submitted_by=f"user-{number % 10}", origin={"git_diff": "x" * 20_000}).id


@contextmanager
def _ledger_url(database: str, folder: Path) -> Iterator[str]:
    if database == "sqlite":
        yield f"sqlite:///{folder / 'ledger.db'}"
        return
    programs = binaries()
    assert programs is not None
    with Postgres(programs) as cluster:
        yield cluster.new_url()
