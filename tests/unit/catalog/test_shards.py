from __future__ import annotations

import io
import tarfile
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from epochal.catalog.build import load_data
from epochal.catalog.data import LoadedData
from epochal.catalog.datasets.tar_shard import TarShard
from epochal.catalog.stream import Read
from epochal.errors import EpochalError, SpecError
from epochal.spec.section import Component

Files = dict[str, bytes]


def picture(grey: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (grey, grey, grey)).save(file, "PNG")
    return file.getvalue()


def written(path: Path, files: Files, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def labelled(first: int, count: int) -> Files:
    files = {}
    for number in range(first, first + count):
        files |= {f"./{number:03}.png": picture(number), f"./{number:03}.cls": str(number % 3).encode()}
    return files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        written(tmp_path / f"train-{number}.tar", labelled(number * 10, 4 + number))
    return tmp_path


def loaded(folder: Path, **params: object) -> LoadedData:
    chosen = {"path": "train-*.tar", "classes": 3, "size": [4, 6], **params}
    return load_data(Component(name="webdataset", params=chosen), folder)


def greys(reads: list[Read]) -> list[int]:
    """The number of each record: its picture's grey."""
    return [round(float(read.sample["input"][0, 0, 0]) * 255) for read in reads if read.sample]


def test_each_pass_of_all_lanes_has_every_record_once_in_an_order_of_its_own(folder: Path) -> None:
    stream = loaded(folder).stream
    assert stream is not None
    every = [0, 1, 2, 3, 10, 11, 12, 13, 14, 20, 21, 22, 23, 24, 25]
    for lanes in (1, 2, 3):
        passes = []
        for number in range(2):
            reads = [read for lane in range(lanes) for read in islice(stream.read(lane, lanes, 7, None), 40)]
            passes.append(greys([read for read in reads if read.cursor["pass"] == number]))
        assert sorted(passes[0]) == every
        assert passes[0] != every
        assert passes[0] != passes[1]


def test_a_cursor_is_where_it_goes_on(folder: Path) -> None:
    stream = loaded(folder).stream
    assert stream is not None
    whole = list(islice(stream.read(1, 2, 7, None), 30))
    for at in range(29):
        assert greys(list(islice(stream.read(1, 2, 7, whole[at].cursor), 29 - at))) == greys(whole[at + 1 :])


def test_samples_are_pictures_and_classes_and_validation_is_read_by_number(folder: Path) -> None:
    written(folder / "val-0.tar", labelled(100, 2))
    written(folder / "val-1.tar", labelled(110, 3))
    data = loaded(folder, path="train-{0..2}.tar", validation_path="val-*.tar")
    assert data.info.input.shape == (3, 4, 6)
    assert data.train_samples == 0
    assert data.validation is not None
    batch = data.validation.fetch(range(len(data.validation)))
    assert (batch["input"][:, 0, 0, 0] * 255).round().tolist() == [100, 101, 110, 111, 112]
    assert batch["target"].tolist() == [1, 2, 2, 0, 1]


def test_the_folder_of_the_spec_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "runs [old] *"
    folder.mkdir()
    for number in range(2):
        written(folder / f"train-{number}.tar", labelled(number * 10, 2))
    for path in ("train-*.tar", "train-{0..1}.tar"):
        stream = loaded(folder, path=path).stream
        assert stream is not None
        assert stream.most_lanes == 2


def test_arrays_and_what_comes_from_elsewhere_or_is_packed(folder: Path) -> None:
    files = {}
    for number in range(3):
        for suffix, array in (("x.npy", np.full((2, 2), number)), ("y.npy", np.array([number / 2], "f8"))):
            file = io.BytesIO()
            np.save(file, array)
            files[f"a/{number}.{suffix}"] = file.getvalue()
    written(folder / "arrays-0.tar.gz", files, "w:gz")
    data = loaded(folder, path=f"file://{folder}/arrays-*.tar.gz", input="x.npy", target="y.npy", classes=None)
    batch = data.train.fetch([0, 1, 2])
    assert batch["input"][:, 0, 0].tolist() == [0.0, 1.0, 2.0]
    assert batch["target"].tolist() == [[0.0], [0.5], [1.0]]
    assert data.stream is not None
    reads = list(islice(data.stream.read(0, 1, 0, None), 6))
    assert sorted(float(read.sample["input"].mean()) for read in reads if read.sample) == [0, 0, 1, 1, 2, 2]


def problems(data: LoadedData, count: int) -> list[str]:
    assert data.stream is not None
    return [read.problem for read in islice(data.stream.read(0, 1, 0, None), count) if read.sample is None]


def test_a_bad_record_is_told_with_its_shard_and_the_rest_is_read(folder: Path) -> None:
    bad = {"a.png": b"no picture", "a.cls": b"1", "b.png": picture(200), "c.png": picture(201), "c.cls": b"7"}
    written(folder / "train-0.tar", labelled(0, 2) | bad)
    told = problems(loaded(folder, path="train-0.tar"), 5)
    name = folder / "train-0.tar"
    assert sorted(one.split(":")[1].strip()[:8] for one in told) == ["record a", "record b", "record c"]
    assert all(one.startswith(f"{name}: record ") for one in told)
    text = "\n".join(told)
    assert "cannot be read as an image" in text
    assert "has no cls" in text
    assert "expected classes from 0 to 2, got [7]" in text


def test_a_shard_that_is_cut_off_gives_what_it_has_and_says_so(folder: Path) -> None:
    whole = (folder / "train-2.tar").read_bytes()
    (folder / "train-2.tar").write_bytes(whole[: whole.index(b"./022.png") + 600])
    data = loaded(folder)
    assert sum("ends after its record" in one for one in problems(data, 13)) == 1
    (folder / "train-1.tar").write_bytes(b"no tar file" * 100)
    assert any("cannot be read as a tar file" in one for one in problems(data, 12))


REFUSED = {
    "absent": ({"path": "other-*.tar"}, "does not exist"),
    "one of them": ({"path": "train-{0..3}.tar"}, r"train-3\.tar do not exist"),
    "both": ({"validation_path": "train-1.tar"}, "are to be trained on and measured"),
    "fields": ({"target": "json"}, "has no json: it has cls, png"),
    "classes": ({"classes": None, "target": "txt"}, "has no txt"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused(folder: Path, case: str) -> None:
    params, said = REFUSED[case]
    with pytest.raises(SpecError, match=said):
        loaded(folder, **params)


def test_one_that_is_no_tar_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"")
    with pytest.raises(EpochalError, match=r"x\.tar cannot be (read|opened)"):
        TarShard(str(tmp_path / "x.tar"))
    with pytest.raises(EpochalError, match=r"gone\.tar cannot be opened"):
        TarShard(str(tmp_path / "gone.tar"))
