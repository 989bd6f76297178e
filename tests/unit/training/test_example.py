from __future__ import annotations

from pathlib import Path

import pytest
import torch

from epochal.catalog.data import DataInfo, Field, LoadedData, TensorSplit
from epochal.errors import CheckpointError
from epochal.training import example
from training_pieces import spec

INFO = DataInfo(Field((3,), torch.int64, 7), Field((), torch.float32))


@pytest.mark.parametrize("samples", [1, 5])
def test_what_was_kept_is_read(tmp_path: Path, samples: int) -> None:
    inputs = torch.arange(3 * samples).reshape(samples, 3)
    split = TensorSplit({"input": inputs, "target": torch.zeros(samples)})
    example.keep(LoadedData(split, None, INFO, "digest", "source"), spec(), tmp_path)
    read, info = example.read(tmp_path)
    assert read.keys() == {"input"}
    assert torch.equal(read["input"], torch.stack([inputs[0], inputs[-1]]))
    assert info == INFO


def test_every_field_that_the_model_is_called_with_is_kept_in_its_order(tmp_path: Path) -> None:
    more = {"shown": Field((2,)), "other": Field((), torch.int64, 4)}
    told = DataInfo(Field((3,)), Field(()), more, inputs=("shown", "input"))
    example.keep(LoadedData(TensorSplit(told.example(5)), None, told, "digest", "source"), spec(), tmp_path)
    read, info = example.read(tmp_path)
    assert list(read) == ["shown", "input"]
    assert torch.equal(read["shown"], told.example(5)["shown"][[0, 4]])
    assert info == told


def test_damaged_or_missing_is_told(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for content in (None, b"not safetensors"):
        if content:
            (tmp_path / example.FILE).write_bytes(content)
        with pytest.raises(CheckpointError, match=r"example\.safetensors cannot be read"):
            example.read(tmp_path)
