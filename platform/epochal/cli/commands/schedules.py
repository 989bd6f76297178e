"""`epochal schedules`: the learning rate schedules of the catalog."""

from __future__ import annotations

from epochal.cli.catalog import catalog_command

command = catalog_command(
    "schedules", "lr_schedule", "The learning rate schedules that a job spec's `train.lr_schedule` can name."
)
