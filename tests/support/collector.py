"""Python's garbage collector, kept from what a test looks at."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def nothing_collected() -> Iterator[None]:
    """What other tests have left unclosed warns when it is collected: not within the block."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
