"""`epochal datasets`: the datasets of the catalog."""

from __future__ import annotations

from epochal.cli.catalog import catalog_command

command = catalog_command("datasets", "dataset", "The datasets that a job spec's `data` can name.")
