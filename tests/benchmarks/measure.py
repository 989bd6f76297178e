"""Measuring in turns, medians, and the table that says which promise was kept."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

Measurement = Callable[[], Mapping[str, float]]
"""Measures one contender once: one figure or several, by name."""


@dataclass(frozen=True)
class Promise:
    """``ours`` compared with ``peer``: their medians' ratio is at most ``limit``.

    Without a ``peer`` the median of ``ours`` itself is at most ``limit``. Without a ``limit`` it is shown, not judged.
    """

    what: str
    ours: str
    peer: str | None = None
    limit: float | None = None


@dataclass
class Section:
    """What one section found: raw figures by contender, in ``unit``, and the promises about them."""

    name: str
    unit: str
    raw: Mapping[str, list[float]]
    promises: list[Promise]
    notes: list[str] = field(default_factory=list)

    def rows(self) -> list[dict[str, Any]]:
        return [self._row(promise) for promise in self.promises]

    def unmeasured(self) -> list[str]:
        """What a promise is about and no round could measure."""
        wanted = {name for promise in self.promises for name in (promise.ours, promise.peer) if name is not None}
        return sorted(wanted - set(self.raw))

    def _row(self, promise: Promise) -> dict[str, Any]:
        if {promise.ours, promise.peer or promise.ours} - set(self.raw):
            return asdict(promise) | {"ours_median": None, "peer_median": None, "ratio": None, "verdict": "UNMEASURED"}
        ours = median(self.raw[promise.ours])
        peer = None if promise.peer is None else median(self.raw[promise.peer])
        judged = ours if peer is None else ours / peer
        verdict = "" if promise.limit is None else "kept" if judged <= promise.limit else "MISSED"
        return asdict(promise) | {"ours_median": ours, "peer_median": peer, "ratio": judged, "verdict": verdict}

    def to_dict(self) -> dict[str, Any]:
        return {"section": self.name, "unit": self.unit, "raw": self.raw, "rows": self.rows(), "notes": self.notes}


failed: list[str] = []
"""What could not be measured, of all sections."""


def interleave(rounds: int, measurements: Mapping[str, Measurement]) -> dict[str, list[float]]:
    """Every measurement once a round, so that what the machine does meanwhile falls on all alike.

    The order turns by one each round, so that none always runs first. What fails is told and lacks that round's figure.
    """
    raw: dict[str, list[float]] = {}
    names = list(measurements)
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            progress(f"round {turn + 1} of {rounds}: {name}")
            try:
                found = measurements[name]()
            except Exception:
                traceback.print_exc()
                failed.append(f"{name}, round {turn + 1}")
                continue
            for figure, value in found.items():
                raw.setdefault(figure, []).append(value)
    return raw


def progress(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def show(section: Section) -> None:
    """The raw figures, then the table."""
    print(f"\n## {section.name} ({section.unit})\n")
    width = max((len(name) for name in section.raw), default=0)
    for name, values in section.raw.items():
        print(f"{name:<{width}}  median {_number(median(values))}  of  {' '.join(_number(value) for value in values)}")
    print()
    for line in _table(section.rows()):
        print(line)
    for note in section.notes:
        print(f"\n{note}")


def _table(rows: list[dict[str, Any]]) -> list[str]:
    head = ("what", "ours", "peer", "ratio", "promise", "")
    cells = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    if row["ours_median"] is None:
        return row["what"], "", "", "", "", row["verdict"]
    alone = row["peer_median"] is None
    peer = "" if alone else _number(row["peer_median"])
    ratio = "" if alone else f"{row['ratio']:.3g} x"
    limit = "" if row["limit"] is None else f"<= {row['limit']:g}{'' if alone else ' x'}"
    return row["what"], _number(row["ours_median"]), peer, ratio, limit, row["verdict"]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
