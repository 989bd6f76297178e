"""`epochal resume`: go on with paused jobs."""

from __future__ import annotations

from epochal.cli.job_actions import action_command

command = action_command(
    "resume",
    "Queue each paused JOB again; it goes on from its newest checkpoint.",
    lambda client, ref, **asked: client.resume(ref, **asked),
)
