from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from epochal.catalog.build import load_data
from epochal.catalog.data import LoadedData
from epochal.catalog.datasets import tokens
from epochal.errors import EpochalError, SpecError
from epochal.spec.section import Component


def written(folder: Path, name: str, values: np.ndarray, dtype: str = "<u2") -> None:
    values.astype(dtype).tofile(folder / name)


def loaded(folder: Path, **params: object) -> LoadedData:
    return load_data(Component(name="tokens", params={"length": 4, "validation": 0, **params}), folder)


@pytest.mark.parametrize("name", ["[run] 1", "a*b", "c?d"])
def test_only_what_is_given_is_a_pattern(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    for number, file in enumerate(("t-1.bin", "t-2.bin", "t-[1].bin")):
        written(folder, file, np.arange(20 * number, 20 * number + 9))
    assert len(loaded(folder, path="t-?.bin").train) == 4
    assert loaded(folder, path="t-[1].bin").train.fetch([0])["input"].tolist() == [[40, 41, 42, 43]]


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_sequences_follow_each_other_with_the_tokens_after_them(tmp_path: Path, dtype: str) -> None:
    written(tmp_path, "t.bin", np.arange(14), dtype)
    data = loaded(tmp_path, path="t.bin", dtype=dtype)
    batch = data.train.fetch(range(len(data.train)))
    assert batch["input"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert batch["target"].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]
    assert data.info.input.classes == 14


def test_no_sequence_lies_in_two_files(tmp_path: Path) -> None:
    for name, first, count in (("a", 0, 9), ("b", 20, 3), ("c", 30, 12)):
        written(tmp_path, f"{name}.bin", np.arange(first, first + count))
    data = loaded(tmp_path, path="*.bin")
    assert data.train.fetch([3, 0, 1, 2])["input"][:, 0].tolist() == [34, 0, 4, 30]


def test_the_last_sequences_are_held_out_or_those_of_a_file_of_their_own(tmp_path: Path) -> None:
    written(tmp_path, "t.bin", np.arange(41))
    written(tmp_path, "v.bin", np.arange(100, 109))
    data = loaded(tmp_path, path="t.bin", validation=0.3)
    assert data.validation is not None
    assert (len(data.train), data.validation.fetch([0, 1, 2])["input"][:, 0].tolist()) == (7, [28, 32, 36])
    data = loaded(tmp_path, path="t.bin", validation_path="v.bin")
    assert data.validation is not None
    assert (len(data.train), data.validation.fetch([0, 1])["input"][:, 0].tolist()) == (10, [100, 104])
    assert data.info.input.classes == 109


def test_large_tokens_and_large_files_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "PIECE", 16)
    monkeypatch.setattr(tokens, "_WHOLE", 100)
    values = np.arange(100_000)
    values[77_777] = 3_000_000_000
    written(tmp_path, "t.bin", values, "<u4")
    data = loaded(tmp_path, path="t.bin", dtype="uint32")
    assert data.info.target.classes == 3_000_000_001
    assert data.train.fetch([19_444])["input"].tolist() == [[77_776, 3_000_000_000, 77_778, 77_779]]
    values[:70_000] = 1
    written(tmp_path, "t.bin", values, "<u4")
    assert loaded(tmp_path, path="t.bin", dtype="uint32").digest != data.digest


REFUSED = {
    "torn": ({"path": "torn.bin"}, "no whole number of uint16 tokens"),
    "short": ({"path": "t.bin", "length": 200}, "too few for a sequence of 200"),
    "none": ({"path": "*.none"}, "does not exist"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_named(tmp_path: Path, case: str) -> None:
    written(tmp_path, "t.bin", np.arange(100))
    (tmp_path / "torn.bin").write_bytes(bytes(11))
    params, said = REFUSED[case]
    with pytest.raises(SpecError, match=said):
        loaded(tmp_path, **params)


def test_a_token_beyond_the_vocabulary_and_a_file_that_was_cut_are_named(tmp_path: Path) -> None:
    written(tmp_path, "t.bin", np.arange(100))
    data = loaded(tmp_path, path="t.bin", vocabulary=50)
    assert data.train.fetch([3])["input"].tolist() == [[12, 13, 14, 15]]
    with pytest.raises(EpochalError, match=r"t\.bin has the token 52 after its token 48"):
        data.train.fetch([12])
    with (tmp_path / "t.bin").open("rb+") as file:
        file.truncate(100)
    with pytest.raises(EpochalError, match=r"t\.bin ends before its token 85"):
        data.train.fetch([20])
