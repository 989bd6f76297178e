"""`epochal trial-schedulers`: which trials of a sweep end early, and where their budget goes."""

from __future__ import annotations

from epochal.cli.catalog import catalog_command

command = catalog_command(
    "trial-schedulers",
    "trial_scheduler",
    "The trial schedulers that `sweep.trial_scheduler` of a job spec can name.",
)
