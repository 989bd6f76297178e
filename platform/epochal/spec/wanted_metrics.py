"""The metrics that a spec waits for, against those that its validations give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from epochal.errors import Problem, did_you_mean

WAITING = ("objective", "train.early_stopping", "train.lr_schedule")
"""The sections that may have a ``metric`` that they wait for."""


@dataclass(frozen=True)
class Given:
    """What validations give: ``names`` (without ``val/``) are their metrics, None where only computing them tells.

    ``known`` are those that ``task.params.metrics`` may name; ``absent`` says why there is no validation data, and is
    empty where there is some, or may be; ``left_out`` are metrics that cannot be computed, each with the reason.
    """

    names: Sequence[str] | None
    known: Sequence[str] = ()
    absent: str = ""
    left_out: Mapping[str, str] = field(default_factory=dict)


def unmet(wanted: Mapping[str, str], given: Given) -> Iterator[Problem]:
    """What of ``wanted``, metrics by the section that waits for them, no validation will give."""
    names = ["train/loss", "val/loss", *(f"val/{name}" for name in given.names or ())]
    for path, metric in wanted.items():
        name = metric.removeprefix("val/")
        problem, hint = "", ""
        if metric not in names and (given.names is not None or metric.startswith("train/")):
            problem, hint = f"there is no metric {metric!r}", _add(name, given) or did_you_mean(metric, tuple(names))
        elif metric != "train/loss" and given.absent:
            problem = f"{metric} needs validation data, and there is none: {given.absent}"
            hint = "hold some out (data.params.validation: 0.2), or take train/loss"
        elif name in given.left_out:
            problem, hint = f"{metric} cannot be computed: {given.left_out[name]}", "hold out more, or take another"
        if problem:
            yield Problem(f"{path}.metric", problem, value=metric, hint=hint)


def _add(name: str, given: Given) -> str:
    if name not in given.known:
        return ""
    return f"add it: task.params.metrics: [{', '.join([*(given.names or ()), name])}]"
