"""`epochal losses`: the losses of the catalog."""

from __future__ import annotations

from epochal.cli.catalog import catalog_command

command = catalog_command("losses", "loss", "The losses that a task's `loss` can name.")
