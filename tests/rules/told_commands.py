"""The commands that messages, help texts, the page, charts and examples tell somebody to type."""

from __future__ import annotations

import re
from pathlib import Path

from code_base import ROOT

SOURCES = sorted(
    path
    for pattern in (
        "platform/epochal/**/*.py",
        "platform/epochal/server/page/*.[hj]*",
        "helm/**/*.[ty]*",
        "jobs/*.yaml",
    )
    for path in ROOT.glob(pattern)
    if "epochal " in path.read_text(encoding="utf-8")
)
VALUE = "X"
"""Stands for what a message fills in: a job, an option with its value."""


def commands_in(source: Path) -> list[str]:
    """Those in backquotes, and those that the page, a chart's notes or a YAML file shows by themselves."""
    text = source.read_text(encoding="utf-8")
    if source.suffix == ".py":
        found = re.findall(r"(?<!`)`(epochal [^`]+)`(?!`)", re.sub(r'"\n\s*f?"', "", text))
    else:
        text = re.sub(r"[`<>]", "\n", text)
        found = re.findall(
            r"(?:^|[\s\"'])(epochal [a-z].*?)(?: lists | to | with | writes |[.;,:]?$)", text, re.MULTILINE
        )
    return [re.sub(r"\$?\{\{?[^{}]*\}\}?", VALUE, command.replace("\n", " ")) for command in found]
