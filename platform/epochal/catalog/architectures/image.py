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


def halved_image(architecture: str, info: DataInfo, times: int, fewer: str) -> tuple[int, int, int]:
    """(channels, height, width) of an input whose sides are halved so often; ``fewer`` of what would halve them less.

    Raises:
        EpochalError: the input is not an image, or cannot be halved as often.
    """
    channels, height, width = image_shape(architecture, info)
    factor = 2**times
    if height % factor or width % factor:
        raise EpochalError(
            f"{architecture}: {height} x {width} pixels cannot be halved {times} times",
            f"give fewer {fewer}, or images whose sides are multiples of {factor}",
        )
    return channels, height, width
