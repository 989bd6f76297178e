"""Datasets by name. To add one: a file here, a line in this table, a YAML in ``jobs/``, and ``make index``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from epochal.registry import Registry

if TYPE_CHECKING:
    from epochal.catalog.entry import Dataset

DATASETS: Registry[Dataset] = Registry(
    "dataset",
    {
        "digits": "epochal.catalog.datasets.digits:ENTRY",
        "wine": "epochal.catalog.datasets.wine:ENTRY",
        "breast-cancer": "epochal.catalog.datasets.breast_cancer:ENTRY",
        "diabetes": "epochal.catalog.datasets.diabetes:ENTRY",
        "air-passengers": "epochal.catalog.datasets.air_passengers:ENTRY",
        "series": "epochal.catalog.datasets.series:ENTRY",
        "synthetic": "epochal.catalog.datasets.synthetic:ENTRY",
        "shapes": "epochal.catalog.datasets.shapes:ENTRY",
        "karate-club": "epochal.catalog.datasets.karate_club:ENTRY",
        "molecules": "epochal.catalog.datasets.molecules:ENTRY",
        "text": "epochal.catalog.datasets.text:ENTRY",
        "text-records": "epochal.catalog.datasets.text_records:ENTRY",
        "dates": "epochal.catalog.datasets.dates:ENTRY",
        "tokens": "epochal.catalog.datasets.tokens:ENTRY",
        "ratings": "epochal.catalog.datasets.ratings:ENTRY",
        "labelled-text": "epochal.catalog.datasets.labelled_text:ENTRY",
        "tones": "epochal.catalog.datasets.tones:ENTRY",
        "wav-folder": "epochal.catalog.datasets.wav_folder:ENTRY",
        "csv": "epochal.catalog.datasets.table:ENTRY",
        "image-folder": "epochal.catalog.datasets.image_folder:ENTRY",
        "idx": "epochal.catalog.datasets.idx:ENTRY",
        "npz": "epochal.catalog.datasets.npz:ENTRY",
        "webdataset": "epochal.catalog.datasets.webdataset:ENTRY",
        "gymnasium": "epochal.catalog.datasets.gymnasium_environment:ENTRY",
    },
)
