"""Your own images in folders: one folder a class, or the folders ``train`` and ``val`` with such folders inside."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field as Bounds

from epochal.catalog.data import Batch, DataInfo, Field, LoadedData, SampleSplit
from epochal.catalog.datasets.files import existing
from epochal.catalog.datasets.in_memory import PartitionParams
from epochal.catalog.datasets.partition import partition
from epochal.catalog.datasets.picture import picture
from epochal.catalog.entry import Dataset
from epochal.errors import EpochalError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


class ImageFolderParams(PartitionParams):
    path: Annotated[str, Bounds(min_length=1)]
    """The folder; relative to the spec's folder. It holds one folder a class, or `train` and `val` with such."""
    size: Annotated[list[Annotated[int, Bounds(ge=1, le=8192)]], Bounds(min_length=2, max_length=2)] = [32, 32]
    """Height and width in pixels that every image is resized to."""
    mode: Literal["rgb", "grayscale"] = "rgb"
    """Three channels or one."""


@dataclass(frozen=True)
class ReadImage:
    """Reads one image of a list; a class and not a closure, so that loader processes can be given it."""

    files: tuple[tuple[Path, int], ...]
    size: tuple[int, int]
    mode: str

    def __call__(self, index: int) -> Batch:
        """input: (channels, height, width) from 0 to 1; target: the class."""
        from PIL import Image

        path, label = self.files[index]
        height, width = self.size
        seen = picture(path) if self.mode == "rgb" else picture(path).convert("L")
        resized = seen.resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(resized, dtype=np.float32).reshape(height, width, -1) / 255
        return {"input": torch.from_numpy(pixels.transpose(2, 0, 1).copy()), "target": torch.tensor(label)}


def build(params: ImageFolderParams, folder: Path) -> LoadedData:
    """input: (channels, height, width) from 0 to 1; target: the class, in the order of the folders' names."""
    root = existing(params.path, folder)
    apart = next((root / name for name in ("val", "validation") if (root / name).is_dir()), None)
    if apart is not None and (root / "train").is_dir():
        classes = _classes(root / "train")
        if unknown := sorted(set(_classes(apart)) - set(classes)):
            raise EpochalError(f"{apart} has classes that the training images lack: {', '.join(unknown)}")
        return _loaded(params, root, classes, _files(root / "train", classes), _files(apart, classes))
    classes = _classes(root)
    return _loaded(params, root, classes, *_held_out(_files(root, classes), params))


def _loaded(
    params: ImageFolderParams,
    root: Path,
    classes: list[str],
    train: list[tuple[Path, int]],
    validation: list[tuple[Path, int]],
) -> LoadedData:
    height, width = params.size
    info = DataInfo(
        input=Field((3 if params.mode == "rgb" else 1, height, width)),
        target=Field((), torch.int64, len(classes)),
    )

    def split(files: list[tuple[Path, int]]) -> SampleSplit:
        return SampleSplit(len(files), ReadImage(tuple(files), (height, width), params.mode))

    return LoadedData(
        split(train), split(validation) if validation else None, info, _digest(root, [*train, *validation]), str(root)
    )


def _classes(root: Path) -> list[str]:
    classes = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(classes) < 2:
        raise EpochalError(f"{root} needs one folder for each of two classes or more, and has {len(classes)}")
    return classes


def _files(root: Path, classes: list[str]) -> list[tuple[Path, int]]:
    files: list[tuple[Path, int]] = []
    for label, name in enumerate(classes):
        images = sorted(path for path in (root / name).rglob("*") if path.suffix.lower() in SUFFIXES)
        if not images:
            raise EpochalError(f"{root / name} has no images", f"known endings: {', '.join(sorted(SUFFIXES))}")
        files.extend((path, label) for path in images)
    return files


def _held_out(
    files: list[tuple[Path, int]], params: ImageFolderParams
) -> tuple[list[tuple[Path, int]], list[tuple[Path, int]]]:
    labels = torch.tensor([label for _, label in files])
    train, validation = partition(len(files), params.validation, params.seed, labels)
    return [files[index] for index in train.tolist()], [files[index] for index in validation.tolist()]


def _digest(root: Path, files: list[tuple[Path, int]]) -> str:
    """Of the files' names and sizes: reading every image would take longer than some trainings."""
    digest = sha256()
    for path, label in sorted(files):
        digest.update(f"{path.relative_to(root).as_posix()}:{path.stat().st_size}:{label};".encode())
    return digest.hexdigest()


ENTRY = Dataset(
    summary="Your own images: one folder a class, or train and val with such folders",
    source="https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.ImageFolder.html",
    params=ImageFolderParams,
    build=build,
    task="classification",
)
