"""`epochal stop`: end jobs for good."""

from __future__ import annotations

from epochal.cli.job_actions import action_command
from epochal.ledger.states import JobState

command = action_command(
    "stop",
    "End each JOB for good.\n\nOne that trains becomes STOPPING until its workers have ended. What it saved stays.",
    lambda client, ref, message: client.stop(ref, message),
    settled=JobState.STOPPED,
)
