"""Overlaid curves of several runs as a picture or a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from epochal.errors import UsageError
from epochal.tracking.spool import Point

SUFFIXES = (".png", ".svg", ".pdf", ".html")

Curves = Mapping[str, Mapping[str, Sequence[Point]]]
"""Metric to the label of a run to its history."""


def plot(curves: Curves, path: Path) -> None:
    """Draw one panel a metric, one line a run, over the global step.

    Raises:
        UsageError: the suffix of ``path`` is none of ``SUFFIXES``.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"cannot draw a {suffix or 'file without suffix'}", f"use one of {', '.join(SUFFIXES)}")
    figure = _figure(curves)
    if suffix == ".html":
        path.write_text(_page(figure), encoding="utf-8")
    else:
        figure.savefig(path)


def _figure(curves: Curves) -> Any:
    from matplotlib.figure import Figure

    rows = max(1, -(-len(curves) // 2))
    figure = Figure(figsize=(12, 3.5 * rows), layout="constrained")
    for index, (metric, lines) in enumerate(curves.items()):
        axes = figure.add_subplot(rows, 2, index + 1)
        for label, history in lines.items():
            axes.plot([point.step for point in history], [point.value for point in history], label=label, linewidth=1.2)
        axes.set_title(metric)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if lines:
            axes.legend(fontsize="small")
    return figure


def _page(figure: Any) -> str:
    drawing = StringIO()
    figure.savefig(drawing, format="svg")
    svg = drawing.getvalue()
    head = '<meta charset="utf-8"><title>Epochal: runs compared</title>'
    return f"<!doctype html><html><head>{head}</head><body>{svg[svg.index('<svg') :]}</body></html>\n"
