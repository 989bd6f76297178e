"""Made-up dates as people write them, character by character, and the same dates in ISO 8601."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field as Bounds

from epochal.catalog.data import LoadedData
from epochal.catalog.datasets.in_memory import PartitionParams, digest_of, parts
from epochal.catalog.datasets.token_pairs import SPECIAL, pair_info, token_pairs
from epochal.catalog.entry import Dataset
from epochal.catalog.understood import Understood

MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December")  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
FORMS = (
    "{day} {month} {year}", "{day} {short} {year}", "{month} {day}, {year}", "{short} {day} {year}",
    "{weekday}, {month} {day}, {year}", "{weekday} {day} {month} {year}", "{day}. {month} {year}",
    "the {day}{th} of {month} {year}", "{month} the {day}{th}, {year}", "{day:02d}.{number:02d}.{year}",
    "{year} {short} {day}", "{day}-{short}-{year}",
)  # fmt: skip
WRITTEN, ISO = "".join(sorted({*"".join((*MONTHS, *DAYS, "theofndrst0123456789 .,-")).lower()})), "-0123456789"
"""The characters of what is written, and of the dates in ISO 8601."""
FIRST, LAST = date(1900, 1, 1), date(2099, 12, 31)


class DatesParams(PartitionParams):
    samples: Annotated[int, Bounds(ge=1, le=1_000_000)] = 8000
    """How many dates, all parts together; days from 1900 to 2099."""


def build(params: DatesParams, folder: Path) -> LoadedData:
    """input: (longest,) characters in lower case, padded; target: (11,), the ten characters of the date and the end."""
    generator = torch.Generator().manual_seed(params.seed)
    days = torch.randint(FIRST.toordinal(), LAST.toordinal() + 1, (params.samples,), generator=generator)
    forms = torch.randint(0, len(FORMS), (params.samples,), generator=generator)
    made = [date.fromordinal(day) for day in days.tolist()]
    written = [_written(day, FORMS[form]) for day, form in zip(made, forms.tolist(), strict=True)]
    sources = [[len(SPECIAL) + WRITTEN.index(one) for one in text] for text in written]
    targets = [[len(SPECIAL) + ISO.index(one) for one in day.isoformat()] for day in made]
    batch = token_pairs(sources, targets)
    info = pair_info(batch, len(SPECIAL) + len(WRITTEN), len(SPECIAL) + len(ISO))
    shown = zip(written[:3], made, strict=False)
    understood = tuple(Understood(text, "input", note=f"target: {day}") for text, day in shown)
    train, validation, test = parts(batch, params)
    classes = (*SPECIAL, *ISO)
    return LoadedData(train, validation, info, digest_of(batch), "dates", understood, classes=classes, test=test)


def _written(day: date, form: str) -> str:
    """In lower case, as the vocabulary is."""
    month, last = MONTHS[day.month - 1], day.day % 10
    th = "th" if 11 <= day.day <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(last, "th")
    return form.format(
        day=day.day, th=th, number=day.month, month=month, short=month[:3], weekday=DAYS[day.weekday()], year=day.year
    ).lower()


ENTRY = Dataset(
    summary="Made-up dates as people write them, and the same in ISO 8601: sequences to be translated",
    source="Epochal's own",
    params=DatesParams,
    build=build,
    task="translation",
)
