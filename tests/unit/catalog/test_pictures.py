"""A picture reaches the net as a viewer shows it, or is refused by its file's name."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from collector import nothing_collected
from epochal.catalog.datasets.image_folder import ReadImage
from epochal.catalog.datasets.picture import picture
from epochal.errors import EpochalError

SEEN = np.array([[0, 64, 128], [192, 255, 32]], dtype=np.uint8)
"""What every file below shows, in grey."""


def _grey() -> Image.Image:
    return Image.fromarray(SEEN)


def _over_white(mode: str) -> Image.Image:
    """Black ink, thinner where lighter: seen only with the alpha channel."""
    ink = Image.new("LA", (3, 2))
    ink.putalpha(Image.fromarray(255 - SEEN))
    return ink.convert(mode)


def _palette(transparent: bool) -> Image.Image:
    image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3), "L").convert("P")
    image.putpalette([value for grey in SEEN.flatten() for value in ([0] * 3 if transparent else [int(grey)] * 3)])
    if transparent:
        image.info["transparency"] = bytes(int(255 - grey) for grey in SEEN.flatten())
    return image


def _turned() -> Image.Image:
    image = _grey().transpose(Image.Transpose.ROTATE_90)
    image.getexif()[0x0112] = 6
    return image


def _deep_turned() -> Image.Image:
    image = Image.fromarray(np.rot90(SEEN.astype(np.uint16) * 257).copy())
    image.getexif()[0x0112] = 6
    return image


def _white_is_zero() -> Image.Image:
    return Image.fromarray(65535 - SEEN.astype(np.uint16) * 257)


CASES: dict[str, tuple[Image.Image, str, dict[str, object]]] = {
    "L": (_grey(), "png", {}),
    "RGB": (_grey().convert("RGB"), "png", {}),
    "16 bits, PNG": (Image.fromarray(SEEN.astype(np.uint16) * 257), "png", {}),
    "16 bits, TIFF": (Image.fromarray(SEEN.astype(np.uint16) * 257), "tiff", {}),
    "16 bits, PGM": (Image.fromarray(SEEN.astype(np.uint16) * 257).convert("I"), "ppm", {}),
    "16 bits, white is zero": (_white_is_zero(), "tiff", {"tiffinfo": {262: 0}}),
    "16 bits, turned by EXIF": (_deep_turned(), "png", {"exif": _deep_turned().getexif()}),
    "floats from 0 to 1": (Image.fromarray(SEEN.astype(np.float32) / 255), "tiff", {}),
    "LA": (_over_white("LA"), "png", {}),
    "RGBA": (_over_white("RGBA"), "png", {}),
    "P": (_palette(transparent=False), "png", {}),
    "P with transparency": (_palette(transparent=True), "png", {"transparency": _palette(True).info["transparency"]}),
    "turned by EXIF": (_turned(), "png", {"exif": _turned().getexif()}),
    "CMYK": (_grey().convert("RGB").convert("CMYK"), "tiff", {}),
    "YCbCr": (_grey().convert("RGB").convert("YCbCr"), "tiff", {}),
    "BMP": (_grey(), "bmp", {}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_picture_is_read_as_it_is_seen(tmp_path: Path, case: str) -> None:
    image, kind, options = CASES[case]
    path = tmp_path / f"a.{kind}"
    image.save(path, kind, **options)
    assert np.abs(np.asarray(picture(path).convert("L")).astype(int) - SEEN).max() <= 1
    sample = ReadImage(((path, 0),), (2, 3), "grayscale")(0)["input"]
    assert np.abs(sample.numpy()[0] * 255 - SEEN).max() <= 1.01


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
    assert np.asarray(picture(tmp_path / "a.png").convert("L")).tolist() == [[255, 0]]


def test_the_transparent_value_of_a_16_bit_picture_is_the_background(tmp_path: Path) -> None:
    Image.fromarray(np.array([[1000, 1001]], dtype=np.uint16)).save(tmp_path / "a.png", transparency=1000)
    assert np.asarray(picture(tmp_path / "a.png").convert("L")).tolist() == [[255, 4]]


@pytest.mark.parametrize("values", [np.full((2, 2), 70000, np.int32), np.array([[0, 2.5]]), np.array([[0, np.nan]])])
def test_32_bits_without_a_white_are_refused_by_name(tmp_path: Path, values: np.ndarray) -> None:
    Image.fromarray(values.astype(np.float32) if values.dtype == float else values).save(tmp_path / "deep.tiff")
    with pytest.raises(EpochalError, match=r"deep\.tiff has pixels of 32 bits") as caught:
        picture(tmp_path / "deep.tiff")
    assert "8 or 16 bits" in caught.value.hint


def _png(pixels: int = 8) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((pixels, pixels), 50).save(file, "png")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "it is empty"),
        (b"hello, I am no picture", "begins with b'hello, I am '"),
        (b"<html>", "of no known format"),
        (_png(64)[:300], "damaged or cut off"),
        (None, "No such file"),
    ],
)
def test_what_cannot_be_read_is_named_with_what_was_found(tmp_path: Path, content: bytes | None, found: str) -> None:
    path = tmp_path / "00.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EpochalError, match=r"00\.png cannot be read as an image") as caught:
        picture(path)
    assert found in str(caught.value)
    assert caught.value.hint


def test_too_many_pixels_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (30, 30)).save(tmp_path / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    with pytest.raises(EpochalError, match=r"big\.png .* too many pixels") as caught:
        picture(tmp_path / "big.png")
    assert "800 pixels" in caught.value.hint


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
RED_IS_BLUE = SRGB.replace(b"rXYZ", b"    ").replace(b"bXYZ", b"rXYZ").replace(b"    ", b"bXYZ")
"""Of a screen whose red light and blue light are exchanged."""
BLUE_SEEN = (0, 0, 255)


@pytest.mark.parametrize(
    ("mode", "colour", "kind", "profile", "seen"),
    [
        ("RGB", (255, 0, 0), "png", None, (255, 0, 0)),
        ("RGB", (255, 0, 0), "png", SRGB, (255, 0, 0)),
        ("RGB", (255, 0, 0), "png", RED_IS_BLUE, BLUE_SEEN),
        ("RGB", (255, 0, 0), "jpeg", RED_IS_BLUE, BLUE_SEEN),
        ("RGB", (255, 0, 0), "tiff", RED_IS_BLUE, BLUE_SEEN),
        ("RGB", (255, 0, 0), "webp", RED_IS_BLUE, BLUE_SEEN),
        ("P", (255, 0, 0), "png", RED_IS_BLUE, BLUE_SEEN),
        ("RGBA", (255, 0, 0, 255), "png", RED_IS_BLUE, BLUE_SEEN),
        ("RGBA", (255, 0, 0, 0), "png", RED_IS_BLUE, (255, 255, 255)),
        ("L", 77, "png", SRGB, (77, 77, 77)),
        ("LA", (77, 255), "png", SRGB, (77, 77, 77)),
    ],
)
def test_colours_are_those_of_the_profile(
    tmp_path: Path, mode: str, colour: Any, kind: str, profile: bytes | None, seen: tuple[int, int, int]
) -> None:
    image = Image.new("RGB", (8, 8), colour).convert("P") if mode == "P" else Image.new(mode, (8, 8), colour)
    image.save(tmp_path / "a", kind, icc_profile=profile)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = np.asarray(picture(tmp_path / "a")).astype(int)
    assert np.abs(found - seen).max() <= 4


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        (SRGB[:200], "cannot"),
        (b"no profile", "cannot open profile"),
        (ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(), "it is for LAB, and the picture is in RGB"),
    ],
)
def test_a_profile_that_cannot_be_used_is_left_out_and_said_by_name(tmp_path: Path, profile: bytes, said: str) -> None:
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "a.png", icc_profile=profile)
    with pytest.warns(UserWarning, match=rf"a\.png: its colour profile is left out.*{said}"):
        assert picture(tmp_path / "a.png").getpixel((0, 0)) == (255, 0, 0)


def test_what_pillow_warns_of_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (30, 30)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    with pytest.warns(Image.DecompressionBombWarning, match=r"large\.png: Image size \(900 pixels\) exceeds"):
        picture(tmp_path / "large.png")


def test_reading_pictures_does_not_make_python_forget_what_it_has_warned_of(tmp_path: Path) -> None:
    Image.new("L", (3, 3)).save(tmp_path / "a.png")
    with warnings.catch_warnings(record=True) as told, nothing_collected():
        warnings.simplefilter("default")
        for _ in range(3):
            picture(tmp_path / "a.png")
            warnings.warn("once is enough", stacklevel=1)
    assert [str(one.message) for one in told] == ["once is enough"]
