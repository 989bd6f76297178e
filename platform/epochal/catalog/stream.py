"""Training data that is read in an order of its own and has no end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from torch import Tensor

Cursor = dict[str, Any]
"""Where a lane is, as plain JSON values: a checkpoint keeps it."""


class Read(NamedTuple):
    """One record of a lane: its ``sample``, fields without a batch dimension, or the ``problem`` for which it is none.
    ``cursor`` is where the lane is after it."""

    sample: dict[str, Tensor] | None
    cursor: Cursor
    problem: str = ""


class Stream(Protocol):
    """Read in *lanes*, whose number does not depend on the number of workers: so neither do the global batches, and a
    training goes on exactly on another number of workers.

    It is read in loader processes where ``data.loader_workers`` is above 0, so it must be picklable.
    """

    @property
    def most_lanes(self) -> int:
        """More of them would have nothing to read: the number of files, say."""

    def read(self, lane: int, lanes: int, seed: int, cursor: Cursor | None) -> Iterator[Read]:
        """The records of one of the ``lanes``, for ever, from a cursor that it gave before; None: from its beginning.

        A pure function of its arguments and of what is stored.

        Raises:
            EpochalError: what no going on to the next record could mend.
        """
