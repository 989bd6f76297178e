"""Your own images in folders: one folder a class, or the folders ``train``, ``val`` and ``test`` with such inside."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field as Bounds
from torch import Tensor

from epochal.catalog.data import Batch, DataInfo, Field, LoadedData, SampleSplit
from epochal.catalog.datasets.files import existing, is_hidden, walk
from epochal.catalog.datasets.in_memory import PartitionParams, three_parts
from epochal.catalog.datasets.picture import picture, shown
from epochal.catalog.entry import Dataset
from epochal.catalog.understood import Understood
from epochal.errors import EpochalError, some

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}

_PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What a split's folder of that name is, in any case of letters."""
Labelled = list[tuple[Path, int]]
"""Pictures with the numbers of their classes."""


class _Parts(NamedTuple):
    train: Labelled
    validation: Labelled
    test: Labelled

    @property
    def all(self) -> Labelled:
        return [*self.train, *self.validation, *self.test]


_LAYOUT = """it is understood with the pictures of each class in a folder of its own:
    pets/cat/01.png  pets/dog/01.png
or split already; without val, a share of train is held out:
    pets/train/cat/01.png  pets/val/cat/02.png  pets/test/cat/03.png"""


class ImageFolderParams(PartitionParams):
    path: Annotated[str, Bounds(min_length=1)]
    """The folder; relative to the spec's folder. It holds one folder a class, or `train`, `val`, `test` with such."""
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
        path, label = self.files[index]
        return {"input": pixels(picture(path), self.size, self.mode), "target": torch.tensor(label)}


def pixels(seen: Image, size: tuple[int, int], mode: str) -> Tensor:
    """The picture resized to ``size`` (height, width): (channels, height, width) from 0 to 1, one channel or three."""
    from PIL import Image

    height, width = size
    resized = (seen if mode == "rgb" else seen.convert("L")).resize((width, height), Image.Resampling.BILINEAR)
    values = np.asarray(resized, dtype=np.float32).reshape(height, width, -1) / 255
    return torch.from_numpy(values.transpose(2, 0, 1).copy())


def build(params: ImageFolderParams, folder: Path) -> LoadedData:
    """input: (channels, height, width) from 0 to 1; target: the class, in the order of the folders' names."""
    root = _with_classes(existing(params.path, folder))
    parts = {_PARTS[path.name.lower()]: path for path in _folders(root) if _is_part(path)}
    if parts and len(parts) == len(_folders(root)) and "train" not in parts:
        raise _not_understood(root, f"has {_names(list(parts.values()))} and no train")
    if "train" not in parts:
        classes = _classes(root)
        others: list[Path] = []
        return _loaded(params, root, classes, _held_out(_files(root, classes, others), params), others)
    train = parts["train"]
    others = []
    if beside := [path for path in _folders(root) if path not in parts.values()]:
        raise _not_understood(
            root, f"has {_names(beside)} beside {shown(train)}: is it a class, or a part of the data?"
        )
    classes = _classes(train)
    files = _files(train, classes, others)
    apart: dict[str, Labelled] = {}
    for name in ("val", "test"):
        if name not in parts:
            continue
        unknown = [path for path in _folders(parts[name]) if path.name not in classes]
        if name == "val" and unknown:
            raise EpochalError(f"{shown(parts[name])} has classes that the training images lack: {_names(unknown)}")
        if name == "test" and (unknown or not _folders(parts[name])):  # without labels, as contests give it
            others.append(parts[name])
        else:
            apart[name] = _files(parts[name], classes, others, all_of_them=False)
    taken = {param: 0.0 for name, param in (("val", "validation"), ("test", "test")) if name in apart}
    made = _held_out(files, params.model_copy(update=taken))
    split = _Parts(made.train, apart.get("val", made.validation), apart.get("test", made.test))
    return _loaded(params, root, classes, split, others)


def _loaded(params: ImageFolderParams, root: Path, classes: list[str], parts: _Parts, others: list[Path]) -> LoadedData:
    height, width = params.size
    channels = 3 if params.mode == "rgb" else 1
    info = DataInfo(input=Field((channels, height, width)), target=Field((), torch.int64, len(classes)))

    def split(files: Labelled) -> SampleSplit:
        read = ReadImage(tuple(files), (height, width), params.mode)
        return SampleSplit(len(files), read, torch.tensor([label for _, label in files]))

    return LoadedData(
        split(parts.train),
        split(parts.validation) if parts.validation else None,
        info,
        _digest(root, parts.all),
        shown(root),
        _understood(root, classes, parts, others),
        doubts=partial(_doubts, root, parts),
        classes=tuple(shown(Path(name)) for name in classes),
        test=split(parts.test) if parts.test else None,
    )


def _understood(root: Path, classes: list[str], parts: _Parts, others: list[Path]) -> tuple[Understood, ...]:
    counts = [Counter(label for _, label in files) for files in parts]
    doubt = _deeper(root, classes, parts.all)
    found = []
    for label, name in enumerate(classes):
        tested = f", {counts[2][label]:,} to test" if parts.test else ""
        note = f"{counts[0][label]:,} to train on, {counts[1][label]:,} to validate{tested}{doubt}"
        found.append(Understood(shown(Path(name)), "class", note=note))
    if others:
        found.append(Understood(f"{len(others):,} others", "left out", note=_names(others)))
    return tuple(found)


def _doubts(root: Path, parts: _Parts) -> Iterator[str]:
    """Pictures, byte by byte the same, that are in two classes, or on both sides of a split."""
    labels, part_of = dict(parts.all), {path: part for part, files in enumerate(parts) for path, _ in files}
    groups = [list(labels)]
    for content in (_size, _start, _whole):
        groups = [alike for group in groups for alike in _grouped(group, content)]
    pairs: dict[str, list[str]] = {"in two classes": [], "on both sides of the split": []}
    for alike in groups:
        for where, kind in zip(pairs, (labels.__getitem__, part_of.__getitem__), strict=True):
            if other := next((path for path in alike if kind(path) != kind(alike[0])), None):
                pairs[where].append(" and ".join(shown(path.relative_to(root)) for path in (alike[0], other)))
    for where, found in pairs.items():
        if found:
            yield f"the same picture is {where}: {some(found, 5)}"


def _grouped(files: list[Path], content: Callable[[Path], object]) -> list[list[Path]]:
    """Those of which there are two or more with the same ``content``. What cannot be read is told by who needs it."""
    groups: dict[object, list[Path]] = {}
    for path in files:
        with suppress(EpochalError, OSError):
            groups.setdefault(content(path), []).append(path)
    return [group for group in groups.values() if len(group) > 1]


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4096)


def _whole(path: Path) -> bytes:
    with path.open("rb") as file:
        return file_digest(file, "sha256").digest()


def _deeper(root: Path, classes: list[str], files: Labelled) -> str:
    """A word where each class has all its pictures in folders of the same names: classes may be a level deeper."""
    below: dict[int, set[str]] = {label: set() for label in range(len(classes))}
    for path, label in files:
        parts = path.relative_to(root).parts
        inside = parts[1 if parts[0] == classes[label] else 2 : -1]
        below[label].add(inside[0] if inside else "")
    if len(below[0]) < 2 or "" in below[0] or any(folders != below[0] for folders in below.values()):
        return ""
    return f", in {_names([Path(name) for name in sorted(below[0])])}, as each class: are these the classes?"


def _with_classes(root: Path) -> Path:
    """``root``, or the only folder in it, as archives are unpacked, where that has the classes."""
    folders = _folders(root)
    if len(folders) == 1 and len(_folders(folders[0])) > 1 and not any(map(_is_picture, root.iterdir())):
        return folders[0]
    return root


def _folders(root: Path) -> list[Path]:
    with os.scandir(root) as entries:  # which knows what is a folder without a question for each file
        return sorted(Path(entry.path) for entry in entries if entry.is_dir() and not is_hidden(entry.name))


def _is_part(folder: Path) -> bool:
    return folder.name.lower() in _PARTS


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not is_hidden(path.name)


def _classes(root: Path) -> list[str]:
    folders = _folders(root)
    if loose := sorted(filter(_is_picture, root.iterdir())):
        raise _not_understood(root, f"has {_names(loose)} in no folder of a class")
    if len(folders) < 2:
        count = f"{len(folders)}: {_names(folders)}" if folders else "none"
        raise _not_understood(root, f"needs one folder for each of two classes or more, and has {count}")
    return [path.name for path in folders]


def _files(root: Path, classes: list[str], others: list[Path], all_of_them: bool = True) -> Labelled:
    """The pictures of each class, at any depth; what is none of them is added to the ``others``."""
    files: Labelled = []
    for label, name in enumerate(classes):
        if not all_of_them and not (root / name).is_dir():
            continue
        if parts := list(filter(_is_part, _folders(root / name))):
            raise _not_understood(root, f"has {_names(parts)} inside of a class")
        found = sorted(walk(root / name))
        images = [path for path in found if _is_picture(path)]
        others += [path for path in found if not _is_picture(path)]
        if not images and all_of_them:
            raise EpochalError(
                f"{shown(root / name)} has no images",
                f"delete the folder, if it is no class; known endings: {', '.join(sorted(SUFFIXES))}",
            )
        files.extend((path, label) for path in images)
    return files


def _names(paths: list[Path]) -> str:
    return some([shown(Path(path.name)) for path in paths], 5)


def _not_understood(root: Path, why: str) -> EpochalError:
    return EpochalError(f"{shown(root)} {why}", _LAYOUT)


def _held_out(files: Labelled, params: ImageFolderParams) -> _Parts:
    parts = three_parts(len(files), params, torch.tensor([label for _, label in files]))
    return _Parts(*([files[index] for index in part.tolist()] for part in parts))


def _digest(root: Path, files: Labelled) -> str:
    """Of the files' names and sizes: reading every image would take longer than some trainings."""
    digest = sha256()
    for path, label in sorted(files):
        name = path.relative_to(root).as_posix()
        digest.update(f"{name}:{_size(path)}:{label};".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _size(path: Path) -> int:
    try:
        found = path.stat()
    except OSError as error:
        raise EpochalError(f"{shown(path)} cannot be read: {error.strerror}", "is it a link to nothing?") from error
    if not stat.S_ISREG(found.st_mode):
        raise EpochalError(f"{shown(path)} cannot be read as an image: it is no file", "take it out of the folder")
    return found.st_size


ENTRY = Dataset(
    summary="Your own images: one folder a class, or train, val and test with such folders",
    source="https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.ImageFolder.html",
    params=ImageFolderParams,
    build=build,
    task="classification",
)
