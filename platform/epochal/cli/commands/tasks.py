"""`epochal tasks`: the tasks of the catalog."""

from __future__ import annotations

from epochal.cli.catalog import catalog_command

command = catalog_command("tasks", "task", "The tasks that a job spec's `task` can name.")
