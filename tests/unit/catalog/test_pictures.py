"""A picture reaches the net as a viewer shows it, or is refused by its file's name."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

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


def _good() -> list[tuple[str, bytes]]:
    made = []
    rgb = Image.merge("RGB", [Image.linear_gradient("L").resize((16, 12))] * 3)
    deep = Image.fromarray(np.arange(192, dtype=np.uint16).reshape(12, 16) * 300)
    kinds = ((rgb, "png"), (rgb, "jpeg"), (rgb, "gif"), (rgb, "bmp"), (rgb, "webp"), (rgb, "ppm"))
    for image, kind in (*kinds, (rgb, "tiff"), (deep, "png"), (deep, "tiff")):
        file = io.BytesIO()
        image.save(file, kind, exif=_turned().getexif()) if kind in ("jpeg", "webp") else image.save(file, kind)
        made.append((kind, file.getvalue()))
    return made


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(_good()), st.data())
def test_a_damaged_copy_is_read_or_refused_by_name(
    tmp_path: Path, good: tuple[str, bytes], data: st.DataObject
) -> None:
    kind, content = good
    damaged = bytearray(content)
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8), "flipped"):
        damaged[place] ^= data.draw(st.integers(1, 255), "by")
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(content))] * 2), "part"))
    how = data.draw(st.sampled_from(["flipped", "cut", "doubled", "without"]), "how")
    if how == "cut":
        del damaged[end:]
    elif how == "doubled":
        damaged[end:end] = damaged[start:end]
    elif how == "without":
        del damaged[start:end]
    path = tmp_path / f"damaged.{kind}"
    path.write_bytes(damaged)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused: EpochalError | None = None
        try:
            ReadImage(((path, 0),), (4, 4), "rgb")(0)
        except EpochalError as error:
            refused = error
    assert refused is None or (str(path) in str(refused) and refused.hint)
