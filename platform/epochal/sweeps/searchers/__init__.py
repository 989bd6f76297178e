"""Searchers by name. To add one: a file here, and a line in this table; the contract suite tests it then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from epochal.registry import Registry

if TYPE_CHECKING:
    from epochal.sweeps.searcher import SearcherEntry

SEARCHERS: Registry[SearcherEntry] = Registry(
    "searcher",
    {
        "grid": "epochal.sweeps.searchers.grid:ENTRY",
        "random": "epochal.sweeps.searchers.random:ENTRY",
        "sobol": "epochal.sweeps.searchers.sobol:ENTRY",
        "tpe": "epochal.sweeps.searchers.tpe:ENTRY",
        "gp": "epochal.sweeps.searchers.gp:ENTRY",
        "cmaes": "epochal.sweeps.searchers.cmaes:ENTRY",
    },
)
