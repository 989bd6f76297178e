"""`epochal pause`: take jobs off the cluster until resume."""

from __future__ import annotations

from epochal.cli.job_actions import action_command
from epochal.ledger.states import JobState

command = action_command(
    "pause",
    "Have each JOB save its state and leave the cluster, or the queue.\n\n`epochal resume` goes on exactly there.",
    lambda client, ref, **asked: client.pause(ref, **asked),
    settled=JobState.PAUSED,
)
