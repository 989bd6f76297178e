"""One picture file as a person sees it in a viewer."""

from __future__ import annotations

import io
import os
import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from epochal.catalog.datasets.files import naming_warnings
from epochal.errors import EpochalError
from epochal.redaction import said

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageCms import ImageCmsTransform

BACKGROUND = "white"
"""What transparent pictures are laid over, as paper is under print."""

_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # tags of TIFF 6.0
_AGAIN = "open it in a viewer; save it again as PNG or JPEG, or take it out of the folder"


def shown(path: Path) -> str:
    """The path as text that can be printed, though its bytes be none: ``caf\\xe9.png``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def picture(path: Path, content: bytes | None = None) -> Image:
    """The picture of ``path``, or of this ``content``, in sRGB: turned as its EXIF data says, its colours as its
    profile says, transparency laid over white, 16 bits as 8. Of several frames or pages the first.

    Raises:
        EpochalError: it cannot be read, or does not say what is black and what is white; the file is named.
    """
    from PIL import Image, ImageOps

    try:
        with naming_warnings(shown(path)), Image.open(path if content is None else io.BytesIO(content)) as opened:
            return _opaque(ImageOps.exif_transpose(_in_8_bits(opened, path)), path)
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
    shallow.info["icc_profile"] = image.info.get("icc_profile")
    return shallow


def _refuse_unless_unit_floats(image: Image, values: np.ndarray, path: Path) -> None:
    if image.mode == "F" and values.min() >= 0 and values.max() <= 1:  # not so with NaN either
        return
    kind = "floats" if image.mode == "F" else "whole numbers"
    raise EpochalError(
        f"{shown(path)} has pixels of 32 bits, {kind} from {values.min():g} to {values.max():g}: which is white?",
        "save it with 8 or 16 bits, or as floats from 0 (black) to 1 (white)",
    )


def _opaque(image: Image, path: Path) -> Image:
    from PIL import Image

    if not image.has_transparency_data:
        return _in_srgb(image, path)
    layer = image.convert("LA" if image.mode in _GREY else "RGBA")
    seen = _in_srgb(layer, path)
    seen.putalpha(layer.getchannel("A"))
    return Image.alpha_composite(Image.new("RGBA", seen.size, BACKGROUND), seen).convert("RGB")


_GREY = ("1", "L", "LA", "La")
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
"""How Pillow holds the colours of a profile's colour space."""


def _in_srgb(image: Image, path: Path) -> Image:
    """Without its transparency."""
    if not (profile := image.info.get("icc_profile")):
        return image.convert("RGB")
    from PIL.ImageCms import PyCMSError

    held = "L" if image.mode in _GREY else image.mode if image.mode in ("CMYK", "LAB") else "RGB"
    try:
        mode, transform = _to_srgb(profile)
        if mode != held and (mode, held) != ("RGB", "L"):
            raise PyCMSError(f"it is for {mode}, and the picture is in {held}")
    except (PyCMSError, OSError, ValueError) as error:
        told = f"{shown(path)}: its colour profile is left out, as viewers do: {said(error)}"
        warnings.warn(told, stacklevel=2)  # with the name, or Python would tell of the first file only
        return image.convert("RGB")
    seen = image.convert(mode)
    return seen.convert("RGB") if transform is None else transform.apply(seen)


@lru_cache(maxsize=8)
def _to_srgb(profile: bytes) -> tuple[str, ImageCmsTransform | None]:
    """The mode that a colour profile is for, and what makes sRGB of it; None where it is sRGB by another name."""
    from PIL import Image, ImageCms

    theirs = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = theirs.profile.xcolor_space.strip()
    if space not in _MODES:
        raise ImageCms.PyCMSError(f"it is for colours in {space}")
    mode = _MODES[space]
    transform = ImageCms.buildTransform(theirs, ImageCms.createProfile("sRGB"), mode, "RGB")
    if mode in ("RGB", "L"):
        step = np.arange(0, 256, 17, dtype=np.uint8)
        probe = Image.fromarray(np.stack(np.meshgrid(step, step, step), -1).reshape(64, 64, 3)).convert(mode)
        shift = np.asarray(transform.apply(probe)).astype(int) - np.asarray(probe.convert("RGB"))
        if np.abs(shift).max() <= 2:
            return mode, None
    return mode, transform


def _unreadable(path: Path, error: Exception) -> EpochalError:
    from PIL import Image, UnidentifiedImageError

    name = f"{shown(path)} cannot be read as an image"
    if isinstance(error, Image.DecompressionBombError):
        most = f"{2 * (Image.MAX_IMAGE_PIXELS or 0):,}"
        return EpochalError(
            f"{name}: it has too many pixels: {said(error)}", f"make it smaller: up to {most} pixels are read"
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
