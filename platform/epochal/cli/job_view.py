"""How jobs look: as rows of a table, and one by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from epochal.cli import render
from epochal.cli.render import Output
from epochal.ledger.capacity import amounts, total_of
from epochal.tracking.pages import page_of
from epochal.training.data_summary import split_text
from epochal.units import Duration

if TYPE_CHECKING:
    from epochal.ledger.values import AgentInfo, Attempt, FullJob, Job, QueueEntry, Why

COLUMNS = ("id", "state", "progress", "waited", "ran", "submitted", "by", "message")
_BAR = 24
_MESSAGE = 60


def show_jobs(jobs: Sequence[Job], now: float, output: Output) -> None:
    """A table of jobs; as data, everything that is known of them."""
    if output in (Output.JSON, Output.YAML):
        render.records([job.to_dict() for job in jobs], ["id"], output)
        return
    render.records([row(job, now) for job in jobs], COLUMNS, output, "jobs")


def row(job: Job, now: float) -> dict[str, Any]:
    """One line of a table; ``now`` is the server's time."""
    return {
        "id": job.id,
        "state": state(job),
        "progress": share(job.progress),
        "waited": seconds(job.pending_seconds(now)),
        "ran": seconds(job.running_seconds(now)) if job.first_started_at is not None else "",
        "submitted": moment(job.submitted_at),
        "by": job.submitted_by,
        "message": shortened(job.message),
    }


def facts(job: FullJob, attempts: Sequence[Attempt], now: float) -> dict[str, Any]:
    """What matters of one job, for a person; what there is nothing to say of is left out."""
    data = ""
    if job.data is not None:
        counts = (job.data.get(f"{part}_samples", 0) for part in ("train", "validation", "test"))
        data = split_text(*counts)
        classes = len(job.data["classes"]) + job.data["more_classes"]
        data += f", {classes:,} classes" if classes else ""
    shown = {
        "id": job.id,
        "state": state(job),
        "message": job.message,
        "progress": bar(job.progress),
        "best": best(job.progress),
        **_metrics(job.progress),
        "submitted": f"{moment(job.submitted_at):%Y-%m-%d %H:%M:%S} by {job.submitted_by or 'nobody'}",
        "queue": job.queue,
        "priority": job.priority,
        "waited": seconds(job.pending_seconds(now)),
        "ran": seconds(job.running_seconds(now)) if job.first_started_at is not None else "",
        "ended": moment(job.ended_at) if job.ended_at is not None else "",
        "attempts": len(attempts),
        "checkpoint": next((_checkpoint(one) for one in reversed(attempts) if one.checkpoint_at), ""),
        "agent": job.owner,
        "data": data,
        "run": job.run_id,
        "page": page_of(job.tracking_uri, job.run_id, job.experiment_id),
        "tracking": job.tracking_uri,
        "code": job.origin.get("code"),
        "retry of": job.origin.get("retry_of"),
    }
    return {name: value for name, value in shown.items() if value not in ("", None)}


def attempt_rows(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """The tries at running a job, as lines of a table."""
    return [
        {
            "attempt": one.epoch,
            "outcome": one.outcome.value if one.outcome else "live",
            "reason": one.reason.value if one.reason else "",
            "workers": one.world_size,
            "agent": one.agent,
            "started": moment(one.started_at or one.leased_at),
            "ran": seconds((one.ended_at or one.leased_at) - one.leased_at) if one.ended_at else "",
            "message": shortened(one.message),
        }
        for one in attempts
    ]


def _checkpoint(attempt: Attempt) -> str:
    when = moment(attempt.checkpoint_at or attempt.leased_at)
    return f"step {attempt.checkpoint_step}, {when:%Y-%m-%d %H:%M:%S}: {attempt.checkpoint_path}"


def queue_row(entry: QueueEntry, now: float) -> dict[str, Any]:
    """A job that waits, with its turn and why it has not come yet."""
    job = entry.job
    return {
        "id": job.id,
        "position": entry.position,
        "priority": job.priority,
        "queue": job.queue,
        "by": job.submitted_by,
        "waited": seconds(job.pending_seconds(now)),
        "why": "; ".join(why_lines(entry.why)),
    }


def agent_row(agent: AgentInfo, now: float) -> dict[str, Any]:
    """An agent, and what its nodes have and have free together."""
    total = total_of(node.total for node in agent.nodes)
    free = total_of(node.available for node in agent.nodes)
    counted = [name for name in ("CPU", "GPU", "memory") if total.get(name)]
    return {
        "agent": agent.name,
        "alive": "yes" if agent.alive else "no",
        "seen": f"{seconds(now - agent.seen_at)} ago",
        "nodes": len(agent.nodes),
        "free": amounts({name: free.get(name, 0.0) for name in counted}),
        "of": amounts({name: total[name] for name in counted}),
    }


def why_lines(why: Why) -> list[str]:
    """Why a job waits, in words, and what would start it."""
    change = f"to start it: {why.change}" if why.change else ""
    return [line for line in (why.message, change) if line]


def state(job: Job) -> str:
    """``FAILED (USER_ERROR)``; the reason only where it says more than the state."""
    reason = job.reason.value if job.reason else ""
    told = reason and reason not in ("COMPLETED", "STOPPED_BY_USER")
    return f"{job.state.value} ({reason})" if told else job.state.value


def share(progress: Mapping[str, Any] | None) -> str:
    """How much of the steps, or of a sweep's trials, is done: ``24%``."""
    told = progress or {}
    done, total = (
        (told.get("done", 0), told["trials"]) if told.get("trials") else (told.get("step", 0), told.get("total_steps"))
    )
    return f"{100 * int(done) // int(total)}%" if total else ""


def bar(progress: Mapping[str, Any] | None) -> str:
    """``[######------] 120/480 steps, epoch 2/8``, or ``8/32 trials, 2 running``; on a terminal or not."""
    if not progress:
        return ""
    if progress.get("trials"):
        others = "".join(f", {progress[name]} {name}" for name in ("running", "failed") if progress.get(name))
        return f"{_drawn(int(progress.get('done', 0)), int(progress['trials']))} trials{others}"
    if not progress.get("total_steps"):
        return ""
    steps = _drawn(int(progress.get("step", 0)), int(progress["total_steps"]))
    epochs = f", epoch {progress.get('epoch', 0)}/{progress['epochs']:g}" if progress.get("epochs") else ""
    return f"{steps} steps{epochs}"


def _drawn(count: int, total: int) -> str:
    done = min(_BAR, _BAR * count // total)
    return f"[{'#' * done}{'-' * (_BAR - done)}] {count}/{total}"


def best(progress: Mapping[str, Any] | None) -> str:
    """Of a sweep: ``0.93 (trial 7)``."""
    told = (progress or {}).get("best")
    return f"{float(told['value']):.5g} (trial {told['trial']})" if told else ""


def seconds(length: float) -> str:
    """Rounded for reading: ``4.2s``, ``3m10s``, ``2h5m``."""
    rounded = round(max(0.0, length), 1 if length < 60 else None)
    return str(Duration(rounded)) if rounded else "0s"


def moment(at: float) -> datetime:
    return datetime.fromtimestamp(at)


def shortened(message: str) -> str:
    """Its first line, cut to fit a table; dots say that there is more."""
    first, more, _ = message.strip().partition("\n")
    return f"{first[: _MESSAGE - 3]}..." if more or len(first) > _MESSAGE else first


def _metrics(progress: Mapping[str, Any] | None) -> dict[str, str]:
    metrics = (progress or {}).get("metrics") or {}
    named = sorted(name for name in metrics if not name.startswith(("system/", "perf/")))
    shown = {name: f"{float(metrics[name]):.5g}" for name in named}
    left_out = (progress or {}).get("more_metrics")
    return shown | ({"more metrics": f"{left_out}: `epochal runs show RUN --all` has them"} if left_out else {})
