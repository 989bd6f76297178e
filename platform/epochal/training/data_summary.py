"""What a training's data was taken for: ``plan`` prints it, MLflow keeps it, a job's page shows it. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from epochal.catalog.understood import Understood
from epochal.terminal import aligned

MOST = 10_000
"""Parts, and classes, that the run's artifact holds; the ledger and the page have the first ``MOST_SHOWN``."""
MOST_SHOWN = 100

_LONGEST = 500
"""Characters of a name or a note."""


@dataclass(frozen=True)
class ClassCount:
    """How many samples of a class there are to train, to validate and to test on."""

    name: str
    train: int
    validation: int
    test: int = 0


@dataclass(frozen=True)
class DataSummary:
    """``understood`` are the parts of the data, ``classes`` those of the target, where it has some and they can be
    counted without reading samples. ``more_...`` count what is left out of a list that was cut.
    """

    dataset: str
    source: str
    digest: str
    train_samples: int
    validation_samples: int
    understood: tuple[Understood, ...] = ()
    classes: tuple[ClassCount, ...] = ()
    notes: tuple[str, ...] = ()
    more_understood: int = 0
    more_classes: int = 0
    more_notes: int = 0
    test_samples: int = 0

    def first(self, most: int) -> DataSummary:
        """With ``most`` of each list at the most, the target among the parts that are kept."""
        by_worth = sorted(self.understood, key=lambda one: not one.taken_for.startswith("target"))
        return replace(
            self,
            understood=self.understood if len(self.understood) <= most else tuple(by_worth[:most]),
            classes=self.classes[:most],
            notes=self.notes[:most],
            more_understood=self.more_understood + max(0, len(self.understood) - most),
            more_classes=self.more_classes + max(0, len(self.classes) - most),
            more_notes=self.more_notes + max(0, len(self.notes) - most),
        )

    def worded(self, said: Callable[[str], str]) -> DataSummary:
        """The same with each name and note as ``said`` gives it."""
        return replace(
            self,
            dataset=said(self.dataset),
            source=said(self.source),
            understood=tuple(replace(one, name=said(one.name), note=said(one.note)) for one in self.understood),
            classes=tuple(replace(one, name=said(one.name)) for one in self.classes),
            notes=tuple(map(said, self.notes)),
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        """For people, as ``plan`` prints it."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        samples = split_text(self.train_samples, self.validation_samples, self.test_samples)
        yield from aligned([["data", self.dataset], ["source", self.source], ["split", samples]])
        if self.understood:
            yield ""
            rows = [[one.name, one.taken_for, str(one.missing or "-"), one.note or "-"] for one in self.understood]
            yield from aligned([["NAME", "TAKEN FOR", "MISSING", "NOTE"], *rows])
            yield from _more(self.more_understood, "parts of the data")
        if self.classes:
            yield ""
            columns = 3 if self.test_samples else 2
            counts = [[one.train, one.validation, one.test][:columns] for one in self.classes]
            rows = [[one.name, *(f"{n:,}" for n in row)] for one, row in zip(self.classes, counts, strict=True)]
            yield from aligned([["CLASS", "TRAIN", "VALIDATION", "TEST"][: columns + 1], *rows])
            yield from _more(self.more_classes, "classes")
        for note in self.notes:
            yield f"\nnote: {note}"
        yield from _more(self.more_notes, "notes")


def split_text(train: int, validation: int, test: int) -> str:
    """How many samples there are; of none to train on it is a stream: otherwise that is refused.

    >>> split_text(1437, 360, 0)
    '1,437 samples to train on, 360 to validate on'
    """
    held = f"{train:,} samples to train on" if train else "a stream of samples to train on"
    return f"{held}, {validation:,} to validate on{f', {test:,} to test' if test else ''}"


def tidy(text: str) -> str:
    """``text`` as JSON, databases and pages take it: what cannot be printed is replaced, and its end left out where it
    is very long."""
    seen = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:_LONGEST])
    return seen if len(text) <= _LONGEST else f"{seen}... ({len(text):,} characters)"


def _more(count: int, what: str) -> Iterator[str]:
    if count:
        yield f"... and {count:,} more {what}"
