"""What generative tasks show: samples that were made, below real ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from epochal.catalog.drawing import tiles

if TYPE_CHECKING:
    from PIL.Image import Image


def made_pictures(real: Tensor, made: Tensor) -> Mapping[str, Image | str]:
    """Twelve of the ``real`` and up to 36 of the ``made``, both (samples, channels, height, width), in the colours of
    the real ones' range; nothing where samples are no pictures."""
    if real.dim() != 4:
        return {}
    low, high = real.aminmax()
    real, made = (((one - low) / (high - low).clamp(min=1e-12)).clamp(0, 1) for one in (real[:12], made[:36]))
    rows = [list(real), *(list(made[row : row + 12]) for row in range(0, len(made), 12))]
    return {"samples": tiles(rows, "first row: of the data; below: made")}
