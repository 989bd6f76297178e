"""The report of a sweep: one self-contained HTML page, made at its end and on demand."""

from __future__ import annotations

from typing import Any

from epochal.sweeps.drawing import MOST_DRAWN, importance_bars, learning_curves, parallel_coordinates
from epochal.sweeps.finding import Finding, Lead, lead, value_of
from epochal.sweeps.importance import Importance, importance
from epochal.units import three_digits
from epochal.web_page import page, paragraph, section, table

_BEST = 10
_BETTER = {"max": "higher", "min": "lower"}


def summary(found: Finding, reference: str) -> dict[str, Any]:
    """The report in a few values, as JSON has them. ``reference`` is how commands name the sweep."""
    leading, important = lead(found), importance(found)
    return {
        "sweep": reference,
        "objective": f"{found.metric} ({found.mode})",
        "trials": found.states,
        "budget": _budget(found),
        "best": [
            {"trial": one.number, "value": value_of(one), "length": one.length, **one.point} for one in _best(found)
        ],
        "lead": leading.said if leading else "",
        "repeat": [found.command(reference, number) for number in leading.repeat] if leading else [],
        "importance": [
            {"path": one.path, "share": one.share, "low": one.low, "high": one.high} for one in important.parameters
        ],
        "importance_of": _importance_said(important, found),
    }


def html(found: Finding, reference: str) -> str:
    """The page. Pictures are left out where there is nothing to draw."""
    ranked = found.ranked
    states = ", ".join(f"{count:,} {state}" for state, count in found.states.items())
    judged = f"{found.metric}, the {_BETTER[found.mode]} the better"
    parts = [
        paragraph(f"{found.how}; {judged}; {len(found.trials):,} trials: {states}", True),
        paragraph(_budget(found)),
    ]
    if not ranked:
        return page(_title(found), *parts, paragraph("No trial has a number for the objective yet."))
    searched = found.searched
    rows = (
        [one.number, value_of(one), f"{one.length:g}", one.state, *(one.point.get(path) for path in searched)]
        for one in _best(found)
    )
    of_many = (
        f"{MOST_DRAWN} of {len(ranked):,} trials are drawn, among them the best." if len(ranked) > MOST_DRAWN else ""
    )
    parts += [
        section("Best trials", table(["trial", found.metric, found.unit, "state", *searched], rows)),
        section("Is the lead more than luck?", *_lead(lead(found), found, reference)),
        section("Learning curves", learning_curves(found), *_notes(of_many)),
    ]
    if searched:
        parts.append(section("Parallel coordinates", parallel_coordinates(found), *_notes(of_many)))
    parts.append(_importance(importance(found), found))
    return page(_title(found), *parts)


def _title(found: Finding) -> str:
    return f"Sweep {found.name}"


def _best(found: Finding) -> list[Any]:
    return found.ranked[:_BEST]


def _budget(found: Finding) -> str:
    if not found.is_over:
        return f"{three_digits(found.used)} {found.unit} have been trained so far."
    return (
        f"{three_digits(found.used)} {found.unit} were trained, {found.saved:.0%} fewer than if every trial that began"
        f" had trained all its {found.full:g}."
    )


def _notes(*texts: str) -> list[str]:
    return [paragraph(text, soft=True) for text in texts if text]


def _lead(leading: Lead | None, found: Finding, reference: str) -> list[str]:
    if leading is None:
        return [paragraph("Only one point has a number yet.")]
    said = leading.said
    parts = [paragraph(f"{said[0].upper()}{said[1:]}.")]
    if leading.repeat:
        parts.append(paragraph("To know, repeat these with other seeds:"))
        parts.append(table(["trial", "command"], ([one, found.command(reference, one)] for one in leading.repeat)))
    return parts


def _importance(important: Importance, found: Finding) -> str:
    drawn = [importance_bars(important)] if important.parameters else []
    return section("Which parameters matter", *drawn, *_notes(_importance_said(important, found)))


def _importance_said(important: Importance, found: Finding) -> str:
    if important.missing:
        return f"Not known: {important.missing}."
    weak = " That is little: do not trust the order." if important.explained < 0.2 else ""
    return (
        f"The share of the variance of ranks of {important.n:,} trials, at {important.length:g} {found.unit}, that is a"
        f" parameter's doing, with 5th to 95th percentile over bootstraps: by random forests, which explain"
        f" {max(important.explained, 0):.0%} of the variance of trials that they have not seen.{weak}"
    )
