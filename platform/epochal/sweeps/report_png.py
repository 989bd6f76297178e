"""The report's pictures as one PNG, for slides and chats. Drawn by matplotlib, which MLflow brings along."""

from __future__ import annotations

import io
from typing import Any

from epochal.sweeps.drawing import axis, colour, drawn, value_limits
from epochal.sweeps.finding import Finding, lead, value_of
from epochal.sweeps.importance import importance


def png(found: Finding) -> bytes:
    """Learning curves, importance and parallel coordinates, 1,600 by 1,100 pixels.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib import rcParams
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rcParams["text.parse_math"] = False  # a value with two dollar signs is no formula
    # Without pyplot, which keeps every figure until it is closed and may look for a display.
    figure = Figure(figsize=(16, 11), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    halves: Any = figure.subfigures(2, 1)
    upper, lower = halves
    left, right = upper.subplots(1, 2)
    leading = lead(found)
    figure.suptitle(f"Sweep {found.name}: {found.how}\n{leading.said if leading else ''}", fontsize=12)
    _curves(left, found)
    _importance(right, found)
    _parallel(lower.subplots(), found)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _curves(axes: Any, found: Finding) -> None:
    ranked = found.ranked
    for rank, trial in drawn(ranked):
        lengths, values = [one.length for one in trial.curve], [one.value for one in trial.curve]
        style: dict[str, Any] = {"color": colour(rank, len(ranked)), "alpha": 0.95 if rank < 10 else 0.4}
        axes.plot(lengths, values, marker="." if len(values) == 1 else "", linewidth=2.5 if rank == 0 else 1, **style)
    if limits := value_limits(found):
        axes.set_ylim(*limits)
    axes.set(title="Learning curves", xlabel=found.unit, ylabel=found.metric)


def _importance(axes: Any, found: Finding) -> None:
    important = importance(found)
    axes.set_title("Which parameters matter")
    if important.missing:
        axes.text(0.5, 0.5, f"Not known: {important.missing}", ha="center", va="center", wrap=True)
        axes.set_axis_off()
        return
    shown = important.parameters[::-1]
    axes.barh([one.path for one in shown], [max(one.share, 0.0) for one in shown], color="#0b63ce", alpha=0.6)
    for row, one in enumerate(shown):
        axes.plot([one.low, one.high], [row, row], color="black", linewidth=2)
    axes.set_xlabel(f"share of the variance of ranks, {important.n:,} trials at {important.length:g} {found.unit}")


def _parallel(axes: Any, found: Finding) -> None:
    ranked = found.ranked
    shown = drawn(ranked)
    names = [*found.searched, found.metric]
    columns = [[trial.point.get(path) for _, trial in shown] for path in found.searched]
    columns.append([value_of(trial) for _, trial in shown])
    scales = [axis(name, values) for name, values in zip(names, columns, strict=True)]
    for index, (rank, _) in enumerate(shown):
        places = [scale.place(values[index]) for scale, values in zip(scales, columns, strict=True)]
        axes.plot(range(len(names)), places, color=colour(rank, len(ranked)), alpha=0.95 if rank < 10 else 0.4)
    for index, scale in enumerate(scales):
        axes.axvline(index, color="#bbbbbb")
        for place, text in scale.ticks:
            axes.text(index + 0.01, place, text, fontsize=8)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks([])
    axes.set_title("Parallel coordinates")
