"""`epochal retry`: submit jobs that have ended once more."""

from __future__ import annotations

from epochal.cli.job_actions import action_command

command = action_command(
    "retry",
    "Submit each JOB that has ended once more, as a new job with the same spec and code.\n\nPrints the new jobs.",
    lambda client, ref, **asked: client.retry(ref, **asked),
)
