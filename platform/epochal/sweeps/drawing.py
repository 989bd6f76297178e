"""The pictures of a sweep's report, as SVG: learning curves, parallel coordinates, importance."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from epochal.sweeps.finding import Finding, value_of
from epochal.sweeps.importance import Importance
from epochal.sweeps.trials import Trial
from epochal.units import three_digits
from epochal.web_page import cell

WIDTH, HEIGHT = 960, 320
MOST_DRAWN = 400
"""Trials in one picture: the best half of them, and of the rest as many at equal distances in rank."""
NOT_GIVEN = "not given"
_MOST_TICKS = 12
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 15, 35


@dataclass(frozen=True)
class Axis:
    """Where values lie, from 0 to 1, and the ticks: place and text."""

    name: str
    places: dict[str, float]
    ticks: tuple[tuple[float, str], ...]

    def place(self, value: Any) -> float:
        return self.places[_key(value)]


def axis(name: str, values: Sequence[Any]) -> Axis:
    """One for these values: numbers linear, or by their logarithms where they span more than a factor of 50, infinite
    ones at the ends, below them what is not given; anything else at equal distances."""
    given = [value for value in values if value is not None]
    numbers = [value for value in given if _is_number(value) and math.isfinite(value)]
    if not all(map(_is_number, given)) or len(set(numbers)) < 2:
        known = sorted(dict.fromkeys(_key(value) for value in values))
        places = {key: (index + 0.5) / len(known) for index, key in enumerate(known)}
        named = list(places.items())[:: max(1, math.ceil(len(places) / _MOST_TICKS))]
        return Axis(name, places, tuple((place, key[:24]) for key, place in named))
    low, high = min(numbers), max(numbers)
    is_log = low > 0 and high / low > 50
    scaled: Callable[[float], float] = math.log if is_log else float
    spread = scaled(high) - scaled(low)
    bottom = 0.15 if len(given) < len(values) else 0.0
    places = {
        _key(value): bottom + (1 - bottom) * (scaled(min(max(value, low), high)) - scaled(low)) / spread
        for value in given
    }
    ticks: list[tuple[float, str]] = []
    for part in (0, 0.25, 0.5, 0.75, 1):
        value = math.exp(scaled(low) + spread * part) if is_log else low + spread * part
        ticks.append((bottom + (1 - bottom) * part, f"{value:.3g}"))
    missing = [(0.0, NOT_GIVEN)] if bottom else []
    return Axis(name, places | dict.fromkeys((NOT_GIVEN,) if bottom else (), 0.0), (*missing, *ticks))


def drawn(ranked: Sequence[Trial], most: int = MOST_DRAWN) -> list[tuple[int, Trial]]:
    """The trials of a picture with their ranks from 0, the worst first, so that the best lie on top."""
    numbered = list(enumerate(ranked))
    best, rest = numbered[: most // 2], numbered[most // 2 :]
    every = max(1, math.ceil(len(rest) / (most - most // 2)))
    return [*best, *rest[::every]][::-1]


def value_limits(found: Finding) -> tuple[float, float] | None:
    """Between which values learning curves are drawn: the worst tenth of all is beyond the edge, for one trial that
    diverges would make a line of the others. None where there is no finite one."""
    measured = (one.value for trial in found.ranked for one in trial.curve)
    values = sorted(found.sign * value for value in measured if math.isfinite(value))
    if not values:
        return None
    low, high = sorted((found.sign * values[0], found.sign * values[math.ceil(0.9 * (len(values) - 1))]))
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def learning_curves(found: Finding) -> str:
    """The objective by length, within ``value_limits``."""
    ranked, limits = found.ranked, value_limits(found)
    if limits is None:
        return ""
    low, high = limits
    longest = max(trial.length for trial in ranked)
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM

    def x(length: float) -> float:
        return _LEFT + (right - _LEFT) * length / longest

    def y(value: float) -> float:
        return bottom - (bottom - _TOP) * (min(max(value, low), high) - low) / (high - low)

    parts = [_line(_LEFT, bottom, right, bottom), _line(_LEFT, _TOP, _LEFT, bottom)]
    for part in range(5):
        value, length = low + (high - low) * part / 4, longest * part / 4
        parts.append(_text(_LEFT - 6, y(value) + 4, f"{value:.3g}", "end"))
        parts.append(_text(x(length), bottom + 15, three_digits(length), "middle"))
    parts.append(_text((_LEFT + right) / 2, HEIGHT - 4, found.unit, "middle"))
    for rank, trial in drawn(ranked):
        points = [(x(one.length), y(one.value)) for one in trial.curve if not math.isnan(one.value)]
        parts.append(_trial(points, trial, rank, found))
    return _svg("Learning curves", HEIGHT, parts)


def parallel_coordinates(found: Finding) -> str:
    """A line a trial through its parameters to the objective."""
    shown = drawn(found.ranked)
    axes = [axis(path, [trial.point.get(path) for _, trial in shown]) for path in found.searched]
    axes.append(axis(found.metric, [value_of(trial) for _, trial in shown]))
    width = max(WIDTH, 130 * len(axes))
    bottom, gap = HEIGHT - _BOTTOM, (width - 200) / max(1, len(axes) - 1)
    parts = []
    for rank, trial in shown:
        values = [*(trial.point.get(path) for path in found.searched), value_of(trial)]
        places = [one.place(value) for one, value in zip(axes, values, strict=True)]
        points = [(100 + gap * index, bottom - (bottom - 40) * place) for index, place in enumerate(places)]
        parts.append(_trial(points, trial, rank, found))
    for index, one in enumerate(axes):
        at = 100 + gap * index
        parts += [_line(at, 40, at, bottom), _text(at, 22, one.name, "middle")]
        parts += [_text(at + 5, bottom - (bottom - 40) * place + 4, text) for place, text in one.ticks]
    return _svg("Parallel coordinates", HEIGHT, parts, width)


def importance_bars(found: Importance) -> str:
    """A bar a parameter, with its interval."""
    height = 24 * len(found.parameters) + 10
    most = max((one.high for one in found.parameters if one.high > 0), default=1.0)

    def x(share: float) -> float:
        return 300 + 560 * min(max(share, 0.0), most) / most

    parts = []
    for index, one in enumerate(found.parameters):
        y = 24 * index + 8
        parts += [
            _text(290, y + 11, one.path, "end"),
            f'<rect x="300" y="{y}" width="{x(one.share) - 300:.1f}" height="14" fill="var(--accent)" opacity=".6"/>',
            f'<path d="M{x(one.low):.1f} {y + 7}H{x(one.high):.1f}" stroke="var(--text)" stroke-width="2"/>',
            _text(x(one.high) + 8, y + 11, f"{one.share:.2f} ({one.low:.2f} to {one.high:.2f})"),
        ]
    return _svg("Importance", height, parts, WIDTH + 60)


def colour(rank: int, count: int) -> str:
    """From that of the best trial, orange, to that of the worst, grey."""
    part = (rank / max(1, count - 1)) ** 0.5  # the root: the first few stand out, however many there are
    mixed = (round(best + (worst - best) * part) for best, worst in zip((232, 89, 12), (140, 152, 164), strict=True))
    return f"#{''.join(f'{one:02x}' for one in mixed)}"


def _trial(points: Sequence[tuple[float, float]], trial: Trial, rank: int, found: Finding) -> str:
    title = f"<title>trial {trial.number}: {found.metric} {cell(value_of(trial))}</title>"
    shade = f'stroke="{colour(rank, len(found.ranked))}" opacity="{0.95 if rank < 10 else 0.4}"'
    width = 2.5 if rank == 0 else 1.2
    places = [f"{x:.1f} {y:.1f}" for x, y in points]
    if len(places) == 1:
        return f'<circle cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="2.5" fill="none" {shade}>{title}</circle>'
    return f'<path d="M{"L".join(places)}" fill="none" stroke-width="{width}" {shade}>{title}</path>'


def _svg(label: str, height: float, parts: Sequence[str], width: float = WIDTH) -> str:
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    return "\n".join([f'<div class="wide"><svg role="img" aria-label="{label}" {size}>', *parts, "</svg></div>"])


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" class="axis"/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _key(value: Any) -> str:
    if value is None or isinstance(value, str):
        return NOT_GIVEN if value is None else value
    return json.dumps(value, sort_keys=True, default=str)
