"""Addresses of MLflow's own pages: the one place that knows how they are written.

MLflow 3 opens on its pages for language models, where no run is to be seen, unless the address says otherwise, whatever
kind an experiment is tagged with.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from urllib.parse import quote

from epochal.urls import without_password

_MODELS = "workflowType=machine_learning"


def web(uri: str | None) -> str | None:
    """A tracking server's address for a browser, without a password; None for a file."""
    if not uri or not uri.startswith(("http://", "https://")):
        return None
    return without_password(uri).rstrip("/")


def experiments_page(root: str) -> str:
    """All experiments of the tracking server whose address in a browser is ``root``."""
    return f"{root}/#/experiments?{_MODELS}"


def runs_page(root: str, experiment_id: str) -> str:
    """The table of an experiment's runs."""
    return f"{root}/#/experiments/{_quoted(experiment_id)}/runs?{_MODELS}"


def run_page(root: str, run_id: str, experiment_id: str | None = None) -> str:
    """One run. Without its experiment MLflow finds that by itself, a moment later."""
    if experiment_id is None:
        return f"{root}/#/runs/{_quoted(run_id)}?{_MODELS}"
    return f"{root}/#/experiments/{_quoted(experiment_id)}/runs/{_quoted(run_id)}?{_MODELS}"


def page_of(uri: str | None, run_id: str | None, experiment_id: str | None) -> str | None:
    """The page of a job's run on the tracking server at ``uri``; None where there is no run, or no server."""
    root = web(uri)
    return run_page(root, run_id, experiment_id) if root and run_id else None


def comparison_page(root: str, runs: Iterable[tuple[str, str]]) -> str:
    """Several runs beside each other, each given as (run id, experiment id).

    >>> comparison_page("http://localhost:5000", [("a", "1"), ("b", "1")])
    'http://localhost:5000/#/compare-runs?runs=%5B%22a%22%2C%22b%22%5D&experiments=%5B%221%22%5D&workflowType=machine_learning'
    """
    pairs = list(runs)
    run_ids, experiments = [run for run, _ in pairs], list(dict.fromkeys(experiment for _, experiment in pairs))
    return f"{root}/#/compare-runs?runs={_listed(run_ids)}&experiments={_listed(experiments)}&{_MODELS}"


def _listed(ids: list[str]) -> str:
    return _quoted(json.dumps(ids, separators=(",", ":")))


def _quoted(text: str) -> str:
    return quote(text, safe="")
