"""`epochal stop`: end jobs for good."""

from __future__ import annotations

from epochal.cli.job_actions import action_command
from epochal.ledger.states import JobState

command = action_command(
    "stop",
    "End each JOB for good.\n\nOne that trains becomes STOPPING until its workers have saved their state and ended.",
    lambda client, ref, **asked: client.stop(ref, **asked),
    settled=JobState.STOPPED,
)
