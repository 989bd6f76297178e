"""Architectures by name. To add one: a file here, a line in this table, a YAML in ``jobs/``, and ``make index``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from epochal.registry import Registry

if TYPE_CHECKING:
    from epochal.catalog.entry import Architecture

ARCHITECTURES: Registry[Architecture] = Registry(
    "architecture",
    {
        "mlp": "epochal.catalog.architectures.mlp:ENTRY",
        "tabular": "epochal.catalog.architectures.tabular:ENTRY",
        "cnn": "epochal.catalog.architectures.cnn:ENTRY",
        "resnet": "epochal.catalog.architectures.resnet:ENTRY",
        "recurrent": "epochal.catalog.architectures.recurrent:ENTRY",
        "transformer": "epochal.catalog.architectures.transformer:ENTRY",
        "bert": "epochal.catalog.architectures.bert:ENTRY",
        "gpt": "epochal.catalog.architectures.gpt:ENTRY",
        "llama": "epochal.catalog.architectures.llama:ENTRY",
        "seq2seq": "epochal.catalog.architectures.seq2seq:ENTRY",
        "forecaster": "epochal.catalog.architectures.forecaster:ENTRY",
        "ctc": "epochal.catalog.architectures.ctc:ENTRY",
        "two-tower": "epochal.catalog.architectures.two_tower:ENTRY",
        "ncf": "epochal.catalog.architectures.ncf:ENTRY",
        "vit": "epochal.catalog.architectures.vit:ENTRY",
        "unet": "epochal.catalog.architectures.unet:ENTRY",
        "autoencoder": "epochal.catalog.architectures.autoencoder:ENTRY",
        "vae": "epochal.catalog.architectures.vae:ENTRY",
        "dec": "epochal.catalog.architectures.dec:ENTRY",
        "detector": "epochal.catalog.architectures.detector:ENTRY",
        "gnn": "epochal.catalog.architectures.gnn:ENTRY",
        "dcgan": "epochal.catalog.architectures.dcgan:ENTRY",
        "ddpm": "epochal.catalog.architectures.ddpm:ENTRY",
        "dqn": "epochal.catalog.architectures.dqn:ENTRY",
        "actor-critic": "epochal.catalog.architectures.actor_critic:ENTRY",
    },
)
