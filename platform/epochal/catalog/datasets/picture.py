"""One picture file as a person sees it in a viewer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from epochal.errors import EpochalError

if TYPE_CHECKING:
    from PIL.Image import Image

BACKGROUND = "white"
"""What transparent pictures are laid over, as paper is under print."""

_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # tags of TIFF 6.0
_AGAIN = "open it in a viewer; save it again as PNG or JPEG, or take it out of the folder"


def shown(path: Path) -> str:
    """The path as text that can be printed, though its bytes be none: ``caf\\xe9.png``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def picture(path: Path) -> Image:
    """The picture of ``path`` in RGB: turned as its EXIF data says, transparency laid over white, 16 bits as 8.

    Of several frames or pages the first.

    Raises:
        EpochalError: it cannot be read, or does not say what is black and what is white; the file is named.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            return _opaque(ImageOps.exif_transpose(_in_8_bits(opened, path)))
    except EpochalError:
        raise
    except Exception as error:  # a damaged file makes Pillow's readers raise nearly anything
        raise _unreadable(path, error) from error


def _in_8_bits(image: Image, path: Path) -> Image:
    """Pillow's own conversion of deeper modes cuts off at 255: all of a 16-bit picture would be white."""
    from PIL import Image

    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    white: float = 1 if image.mode == "F" else 4095 if tags.get(_BITS_PER_SAMPLE) == (12,) else 65535
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):  # of PPM, I means 16 bits
        _refuse_unless_unit_floats(image, values, path)
    grey = values / white
    if tags.get(_PHOTOMETRIC) == 0:  # WhiteIsZero, which Pillow minds up to 8 bits
        grey = 1 - grey
    shallow = Image.fromarray((grey * 255).round().astype(np.uint8))
    if "transparency" in image.info:
        shallow.putalpha(Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)))
    shallow.getexif().update(image.getexif())
    return shallow


def _refuse_unless_unit_floats(image: Image, values: np.ndarray, path: Path) -> None:
    if image.mode == "F" and values.min() >= 0 and values.max() <= 1:  # not so with NaN either
        return
    kind = "floats" if image.mode == "F" else "whole numbers"
    raise EpochalError(
        f"{shown(path)} has pixels of 32 bits, {kind} from {values.min():g} to {values.max():g}: which is white?",
        "save it with 8 or 16 bits, or as floats from 0 (black) to 1 (white)",
    )


def _opaque(image: Image) -> Image:
    from PIL import Image

    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, BACKGROUND), layer).convert("RGB")


def _unreadable(path: Path, error: Exception) -> EpochalError:
    from PIL import Image, UnidentifiedImageError

    name = f"{shown(path)} cannot be read as an image"
    if isinstance(error, Image.DecompressionBombError):
        most = f"{2 * (Image.MAX_IMAGE_PIXELS or 0):,}"
        return EpochalError(
            f"{name}: it has too many pixels: {error}", f"make it smaller: up to {most} pixels are read"
        )
    if isinstance(error, FileNotFoundError | PermissionError):
        return EpochalError(f"{name}: {error.strerror}", "every worker must see the same files, and may read them")
    if isinstance(error, UnidentifiedImageError):
        try:
            with path.open("rb") as file:
                start = file.read(12)
        except OSError as unread:
            return EpochalError(f"{name}: {unread.strerror}", _AGAIN)
        found = f"of no known format, it begins with {start!r}" if start else "it is empty (0 bytes)"
        return EpochalError(f"{name}: {found}", _AGAIN)
    return EpochalError(f"{name}: it is damaged or cut off: {error or type(error).__name__}", _AGAIN)
