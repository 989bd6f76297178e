"""Tasks by name. To add one: a file here, a line in this table, a YAML in ``jobs/``, and ``make index``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from epochal.registry import Registry

if TYPE_CHECKING:
    from epochal.catalog.entry import TaskEntry

TASKS: Registry[TaskEntry] = Registry(
    "task",
    {
        "classification": "epochal.catalog.tasks.classification:ENTRY",
        "multi-label": "epochal.catalog.tasks.multi_label:ENTRY",
        "regression": "epochal.catalog.tasks.regression:ENTRY",
        "segmentation": "epochal.catalog.tasks.segmentation:ENTRY",
        "reconstruction": "epochal.catalog.tasks.reconstruction:ENTRY",
        "variational": "epochal.catalog.tasks.reconstruction:VARIATIONAL",
        "adversarial": "epochal.catalog.tasks.adversarial:ENTRY",
        "diffusion": "epochal.catalog.tasks.diffusion:ENTRY",
        "language-modelling": "epochal.catalog.tasks.language_modelling:ENTRY",
        "translation": "epochal.catalog.tasks.translation:ENTRY",
        "recommendation": "epochal.catalog.tasks.recommendation:ENTRY",
        "clustering": "epochal.catalog.tasks.clustering:ENTRY",
        "detection": "epochal.catalog.tasks.detection:ENTRY",
        "node-classification": "epochal.catalog.tasks.node_classification:ENTRY",
        "forecasting": "epochal.catalog.tasks.forecasting:ENTRY",
        "speech": "epochal.catalog.tasks.speech:ENTRY",
        "reinforcement-learning": "epochal.catalog.tasks.reinforcement_learning:ENTRY",
    },
)
