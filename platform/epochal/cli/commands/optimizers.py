"""`epochal optimizers`: the optimizers of the catalog."""

from __future__ import annotations

from epochal.cli.catalog import catalog_command

command = catalog_command("optimizers", "optimizer", "The optimizers that a job spec's `train.optimizer` can name.")
