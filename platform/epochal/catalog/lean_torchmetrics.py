"""torchmetrics without what it imports of other packages by the way, which takes ten times as long as its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest.mock import patch

from lightning_utilities.core import imports

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

    from epochal.catalog.task import Task


def metrics_of(task: Task) -> MetricCollection:
    """Those that a task makes, for which it imports torchmetrics."""
    with lean_torchmetrics():
        return task.metrics()


@contextmanager
def lean_torchmetrics() -> Iterator[None]:
    """Import torchmetrics within this block.

    Wherever they are installed (MLflow brings both) it imports scipy.signal, to add an alias there, and matplotlib, for
    plots of metrics. In a process where it was first imported in here, ``Metric.plot`` does not work. Everything else
    that metrics may need beside torch is found as always.
    """
    available, met = imports.package_available, imports.RequirementCache.__bool__

    def is_available(package: str) -> bool:
        return package != "scipy" and available(package)

    def is_met(requirement: imports.RequirementCache) -> bool:
        return requirement.requirement not in ("matplotlib", "scipy") and met(requirement)

    with (
        patch.object(imports, "package_available", is_available),
        patch.object(imports.RequirementCache, "__bool__", is_met),
    ):
        yield
