"""`epochal searchers`: how a sweep can choose its points."""

from __future__ import annotations

from epochal.cli.catalog import catalog_command

command = catalog_command("searchers", "searcher", "The searchers that `sweep.search` of a job spec can name.")
