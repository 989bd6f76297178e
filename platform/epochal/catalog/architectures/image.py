"""What image architectures ask of their input."""

from __future__ import annotations

from epochal.catalog.data import DataInfo
from epochal.errors import EpochalError


def image_shape(architecture: str, info: DataInfo) -> tuple[int, int, int]:
    """(channels, height, width) of the input.

    Raises:
        EpochalError: the input is not an image.
    """
    field = info.input
    if len(field.shape) != 3 or not field.dtype.is_floating_point:
        raise EpochalError(
            f"{architecture} takes images (channels, height, width), and this dataset's input is {field.shape}",
            "use mlp for vectors, recurrent or transformer for sequences",
        )
    channels, height, width = field.shape
    return channels, height, width
