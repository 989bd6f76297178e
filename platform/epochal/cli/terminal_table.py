"""Tables on a terminal: as wide as that, words whole, and columns that can be spared left out where there is no room.

Imports Rich, so it is imported only to draw.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

_GAP = 2
_WHOLE = 16
"""A cell up to so wide stays on one line; a longer one is broken between words."""


def drawn(
    columns: Mapping[str, Sequence[str]], room: int, numbers: Collection[str] = (), spare: Iterable[str] = ()
) -> tuple[Table, list[str]]:
    """Draw ``columns``, a name to header and cells, in ``room`` characters; and which were left out.

    Args:
        numbers: columns that are aligned to the right.
        spare: columns that may be left out, the first of them first. Where it does not fit without them either, words
            are broken.
    """
    shown, give_way = dict(columns), iter(spare)
    while (widths := _widths(shown.values(), room)) is None and (name := next(give_way, None)) is not None:
        del shown[name]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, title_justify="left", pad_edge=False)
    for place, (name, (header, *_)) in enumerate(shown.items()):
        width = widths[place] if widths else None
        table.add_column(header, justify="right" if name in numbers else "left", overflow="fold", width=width)
    for cells in list(zip(*shown.values(), strict=True))[1:]:
        table.add_row(*map(Text, cells))
    return table, [name for name in columns if name not in shown]


def _widths(columns: Collection[Sequence[str]], room: int) -> list[int] | None:
    """Of columns whose words stay whole, each as wide as there is room for, the first first; None where they do not
    fit."""
    least = [max(_longest_word(header), *map(_least, cells)) for header, *cells in columns]
    left = room - sum(least) - _GAP * (len(least) - 1)
    if left < 0:
        return None
    widths = []
    for few, column in zip(least, columns, strict=True):
        widths.append(few + min(left, max(map(cell_len, column)) - few))
        left -= widths[-1] - few
    return widths


def _least(cell: str) -> int:
    return max(_longest_word(cell), min(cell_len(cell), _WHOLE))


def _longest_word(text: str) -> int:
    return max(map(cell_len, text.split()), default=0)
