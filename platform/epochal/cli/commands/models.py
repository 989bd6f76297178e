"""`epochal models`: the architectures of the catalog."""

from __future__ import annotations

from epochal.cli.catalog import catalog_command

command = catalog_command("models", "architecture", "The architectures that a job spec's `model` can name.")
