"""Small good files of every kind that is read, and damaged copies of them, the same for the same seed."""

from __future__ import annotations

import bz2
import gzip
import io
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageCms
from pyarrow import csv, parquet

Damage = Callable[[Random, bytes], bytes]

TABLE = 'name,size,price,"a, quoted",when,y\n' + "".join(
    f'n{index % 3},{index * 1.5},"${index},0{index % 10}0","line\nbreak",2024-01-{index + 1:02},{"pq"[index % 2]}\n'
    for index in range(12)
).replace("n0,", "größe,").replace(",3.0,", ",?,")  # fmt: skip


def _arrow(text: str = TABLE) -> pa.Table:
    return csv.read_csv(io.BytesIO(text.encode()), parse_options=csv.ParseOptions(newlines_in_values=True))


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(table, sink)
    return sink.getvalue()


def _npz(arrays: dict[str, Any], packed: bool = False) -> bytes:
    sink = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(sink, **arrays)
    return sink.getvalue()


ARRAYS = {
    "x": np.arange(24.0).reshape(8, 3), "y": np.arange(8) % 2,
    "x_val": np.ones((2, 3)), "y_val": np.array([0, 1]),
}  # fmt: skip


def picture(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    image = Image.merge("RGB", [Image.linear_gradient("L").resize((16, 12))] * 3)
    if mode == "I;16":
        image = Image.fromarray(np.arange(192, dtype=np.uint16).reshape(12, 16) * 300)
    sink = io.BytesIO()
    (image if mode == "I;16" else image.convert(mode)).save(sink, kind, **options)
    return sink.getvalue()


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PICTURES = {
    "a.png": picture("png", icc_profile=PROFILE), "rgba.png": picture("png", "RGBA"), "p.png": picture("png", "P"),
    "deep.png": picture("png", "I;16"), "a.jpg": picture("jpeg", exif=_exif(), icc_profile=PROFILE),
    "a.gif": picture("gif"), "a.bmp": picture("bmp"), "a.webp": picture("webp", exif=_exif()),
    "a.ppm": picture("ppm"), "a.tiff": picture("tiff"), "packed.tiff": picture("tiff", compression="tiff_lzw"),
    "deep.tiff": picture("tiff", "I;16"), "cmyk.tiff": picture("tiff", "CMYK"),
}  # fmt: skip

TABLES = {
    "t.csv": TABLE.encode(), "t.tsv": TABLE.replace(", ", " ").replace(",", "\t").encode(),
    "t.csv.gz": gzip.compress(TABLE.encode(), mtime=0), "t.csv.bz2": bz2.compress(TABLE.encode()),
    "t.csv.zst": bytes(pa.compress(TABLE.encode(), "zstd", asbytes=True)), "t.utf-16.csv": TABLE.encode("utf-16"),
    "t.parquet": _parquet(_arrow()),
}  # fmt: skip

ARCHIVES = {"t.npz": _npz(ARRAYS), "packed.npz": _npz(ARRAYS, packed=True)}


def damaged_bytes(random: Random, content: bytes) -> bytes:
    """Some bytes flipped, then perhaps a part cut off, doubled, left out, zeroed, or something put in."""
    data = bytearray(content)
    for _ in range(random.choice((0, 1, 1, 2, 8))):
        if data:
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    start, end = sorted(random.choices(range(len(data) + 1), k=2))
    if random.random() < 0.5:  # a short one hits one field of a header
        end = min(end, start + random.randint(1, 8))
    match random.choice(("flipped", "cut", "doubled", "without", "zeroed", "put in")):
        case "cut":
            del data[start:]
        case "doubled":
            data[end:end] = data[start:end]
        case "without":
            del data[start:end]
        case "zeroed":
            data[start:end] = bytes(end - start)
        case "put in":
            data[start:start] = random.randbytes(random.randint(1, 20))
    return bytes(data)


_CELLS = ("", " ", "?", "NA", "nan", "inf", "-", "1e999", "1_000", "0x1F", "10%", "€5", "1.2.3", "yes", "ü", '"', "\0",
          "2024-02-30", "9" * 400, "x" * 3000, "true", "\ufeff", "1,5", ",", "\r", "=1+1")  # fmt: skip


def damaged_table(random: Random, content: bytes) -> bytes:
    """Text: a column renamed, doubled, retyped, emptied or left out, the header lost, a row too long or too short."""
    rows = [line.split(",") for line in content.decode().split("\n")]
    at, row = random.randrange(len(rows[0])), random.randrange(1, len(rows))
    match random.choice(("renamed", "doubled", "emptied", "retyped", "left out", "header", "long", "short", "cell")):
        case "renamed":
            rows[0][at] = random.choice(_CELLS)
        case "doubled":
            rows[0][at] = rows[0][random.randrange(len(rows[0]))]
        case "emptied" | "retyped" | "left out" as how:
            cell = {"emptied": [""], "retyped": [random.choice(_CELLS)], "left out": []}[how]
            rows = [one[:at] + (cell if number or how == "left out" else one[at : at + 1]) + one[at + 1 :]
                    for number, one in enumerate(rows)]  # fmt: skip
        case "header":
            del rows[0]
        case "long":
            rows[row] += random.choices(_CELLS, k=3)
        case "short":
            rows[row] = rows[row][:at]
        case "cell":
            rows[row][random.randrange(len(rows[row]))] = random.choice(_CELLS)
    return "\n".join(map(",".join, rows)).encode(random.choice(("utf-8", "utf-8", "cp1252")), "replace")


_COLUMNS: tuple[Callable[[int], pa.Array], ...] = (
    lambda count: pa.array([None] * count),
    lambda count: pa.array([[1]] * count),
    lambda count: pa.array([{"a": 1}] * count),
    lambda count: pa.array([b"\xff\0"] * count),
    lambda count: pa.array(["1", None] * count, pa.string())[:count],
    lambda count: pa.array([True, None] * count)[:count],
    lambda count: pa.array(range(count), pa.timestamp("ns")),
    lambda count: pa.array(range(count), pa.duration("s")),
    lambda count: pa.array(range(count), pa.date32()),
    lambda count: pa.array([2**64 - 1] * count, pa.uint64()),
    lambda count: pa.array(range(count), pa.int64()).cast(pa.decimal128(38, 5)),
    lambda count: pa.array([float("inf"), float("nan")] * count)[:count],
    lambda count: pa.array(["a", "b"] * count).dictionary_encode()[:count],
    lambda count: pa.array([1.0] * count, pa.float16()),
    lambda count: pa.array(["a", None] * count, pa.string_view())[:count],
    lambda count: pa.array([b"ab"] * count, pa.binary(2)),
    lambda count: pa.nulls(count, pa.large_string()),
)


def damaged_parquet(random: Random, content: bytes) -> bytes:
    table = parquet.read_table(io.BytesIO(content))
    at = random.randrange(table.num_columns)
    match random.choice(("renamed", "retyped", "retyped", "retyped", "left out", "empty")):
        case "renamed":
            names = list(table.column_names)
            names[at] = random.choice(("", "y", "ü", "\0", "name"))
            table = table.rename_columns(names)
        case "retyped":
            table = table.set_column(at, table.column_names[at], random.choice(_COLUMNS)(table.num_rows))
        case "left out":
            table = table.remove_column(at)
        case "empty":
            table = table.slice(0, random.randint(0, 2))
    return _parquet(table)


_TYPES: tuple[Callable[[np.ndarray], Any], ...] = (
    lambda array: array.astype(complex),
    lambda array: array.astype("M8[s]"),
    lambda array: array.astype(object),
    lambda array: array.astype(str),
    lambda array: array.astype(bytes),
    lambda array: array.astype(bool),
    lambda array: array.astype(np.longdouble),
    lambda array: array.astype(np.float16),
    lambda array: array.astype(">f8"),
    lambda array: array.astype(np.uint64) + np.uint64(2**63),
    lambda array: np.zeros(len(array), [("a", int)]),
    lambda array: array[:0],
    lambda array: array[:, None] if array.ndim < 3 else array[0],
    lambda array: np.float64(1),
    lambda array: np.where(array == array.max(), np.nan, array),
    lambda array: array.astype("V8") if array.dtype.itemsize == 8 else array,
    lambda array: np.asfortranarray(array) * 1e300,
    lambda array: array.ravel(),
)


def damaged_npz(random: Random, content: bytes) -> bytes:
    """Members renamed, retyped or left out; or something else in one, in an archive that is whole."""
    with np.load(io.BytesIO(content)) as file:
        arrays = dict(file)
    name = random.choice(list(arrays))
    match random.choice(("renamed", "retyped", "retyped", "retyped", "left out", "member")):
        case "renamed":
            arrays[random.choice(("", "X", "y", "x", "a/b"))] = arrays.pop(name)
        case "retyped":
            arrays[name] = random.choice(_TYPES)(arrays[name])
        case "left out":
            del arrays[name]
        case "member":
            return _with_member(random, content, f"{name}.npy")
    return _npz(arrays)


def _with_member(random: Random, content: bytes, damaged: str) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as before, zipfile.ZipFile(sink, "w") as after:
        for name in before.namelist():
            member = before.read(name)
            after.writestr(name, damaged_bytes(random, member) if name == damaged else member)
    return sink.getvalue()


GOOD: dict[str, tuple[bytes, tuple[Damage, ...]]] = {
    **{name: (content, (damaged_bytes,)) for name, content in (TABLES | PICTURES | ARCHIVES).items()},
    "t.csv": (TABLES["t.csv"], (damaged_bytes, damaged_table, damaged_table)),
    "t.parquet": (TABLES["t.parquet"], (damaged_bytes, damaged_parquet)),
    "t.npz": (ARCHIVES["t.npz"], (damaged_bytes, damaged_npz, damaged_npz)),
}
"""Files by name, each with how it is damaged."""


def damaged(name: str, seed: int) -> bytes:
    content, ways = GOOD[name]
    random = Random(f"{name} {seed}")
    return random.choice(ways)(random, content)
