"""Samples that are read one by one: which of them failed, and what it is unlike the others by."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from epochal.catalog.data import SampleSplit
from epochal.errors import CodeError, EpochalError
from epochal.training.every_sample import bad_of
from epochal.training.fetching import Fetch
from epochal.training.loader import _Reader, _request

HERE = Path(__file__).name


def raising(error: BaseException) -> Callable[[int], Any]:
    def read(index: int) -> Any:
        if index == 3:
            raise error
        return {"input": torch.ones(2)}

    return read


def giving(odd: Any) -> Callable[[int], Any]:
    return lambda index: odd if index == 3 else {"input": torch.ones(2)}


CASES: Mapping[str, tuple[Callable[[int], Any], str]] = {
    "missing file": (raising(FileNotFoundError(2, "No such file", "3.wav")), "No such file"),
    "wrong value": (raising(ValueError("no number: 'x'")), "sample 3 cannot be read: no number: 'x' ("),
    "wrong key": (raising(KeyError("label")), "sample 3 cannot be read: KeyError: 'label' ("),
    "no message": (raising(RuntimeError()), "sample 3 cannot be read: RuntimeError ("),
    "memory": (raising(MemoryError()), "sample 3 cannot be read: MemoryError ("),
    "text": (raising(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")), "invalid start byte"),
    "password": (raising(OSError("http://ada:hunter2@store/3 is gone")), "sample 3 cannot be read: http://store/3 is"),
    "one of ours": (raising(CodeError("as it is")), "as it is"),
    "shape": (giving({"input": torch.ones(3)}), "sample 3: found input (3,), expected input (2,), as in sample 0"),
    "fields": (giving({"image": torch.ones(2)}), "sample 3: found image (2,), expected input (2,), as in sample 0"),
    "a tuple": (giving((torch.ones(2), 1)), "sample 3: found a tuple, expected input (2,), as in sample 0"),
    "nothing": (giving(None), "sample 3: found a NoneType, expected input (2,), as in sample 0"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_sample_that_cannot_be_read_is_named(case: str) -> None:
    read, said = CASES[case]
    split = SampleSplit(5, read)
    assert split.fetch([0, 1])["input"].shape == (2, 2)
    with pytest.raises(EpochalError) as caught:
        split.fetch([0, 1, 3])
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)
    if said.endswith("("):
        assert f"({HERE}, line " in str(caught.value)


def test_of_many_samples_the_bad_one_is_found() -> None:
    read, said = CASES["wrong value"]
    ((sample, reason),) = bad_of(SampleSplit(5, read), {}, range(5))
    assert sample == 3
    assert reason.startswith(said)


def test_a_loader_process_tells_it_without_a_traceback_in_the_message() -> None:
    read, said = CASES["wrong key"]
    answer = pickle.loads(pickle.dumps(_Reader(Fetch(SampleSplit(5, read), {}, 0))[_request([0, 3], 2)]))
    assert isinstance(answer, EpochalError)
    assert said in str(answer)
    assert "Traceback" not in str(answer)
    assert "KeyError: 'label'" in answer.__notes__[0]
