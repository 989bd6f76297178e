"""Batches from processes of their own."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
from PIL import Image

import training_pieces as pieces
from epochal.catalog.build import load_data
from epochal.catalog.data import Batch, LoadedData, SampleSplit, Split
from epochal.errors import CodeError, EpochalError
from epochal.spec.job import JobSpec
from epochal.spec.section import Component
from epochal.training import every_sample
from epochal.training.fetching import Fetch
from epochal.training.loader import Loader, _Reader, _request, start_early
from epochal.training.sampler import Sampler
from packed_trials import UNWRITTEN, Noisy, assert_as_alone, made


def test_loader_processes_draw_nothing_from_the_training() -> None:
    shares = Sampler(8, 4, 0).shares(0, 1, 0, 2)
    before = torch.get_rng_state()
    batches = Loader(pieces.samples(8), torch.device("cpu"), workers=1).train(shares, 0)
    assert next(batches).size == 4
    assert torch.equal(torch.get_rng_state(), before)
    batches.close()


def test_the_process_that_loader_processes_come_from_can_be_started_before_they_are_needed() -> None:
    def servers() -> set[psutil.Process]:
        commands = {child: child.as_dict(["cmdline"])["cmdline"] or [] for child in psutil.Process().children()}
        return {child for child, command in commands.items() if "multiprocessing.forkserver" in " ".join(command)}

    start_early()
    early = servers()
    assert len(early) == 1
    batches = Loader(pieces.samples(8), torch.device("cpu"), workers=1).train(Sampler(8, 4, 0).shares(0, 1, 0, 2), 0)
    assert next(batches).size == 4
    batches.close()
    assert servers() == early


@pytest.mark.slow
def test_trials_of_a_pack_share_what_processes_read(tmp_path: Path) -> None:
    """As each would read it alone, noise included: it depends on the seed and on the place in the training."""
    data = replace(pieces.data(), train=Noisy(pieces.samples(25).tensors))
    jobs = [
        JobSpec.model_validate(
            {
                **pieces.spec(optimizer={"lr": lr}).model_dump(exclude_unset=True),
                "data": {"name": "mine", "loader_workers": 1},
            }
        )
        for lr in (0.01, 0.05)
    ]
    assert assert_as_alone([partial(made, job, data=data) for job in jobs], tmp_path, UNWRITTEN).why_alone == ""


def ending(index: int) -> Batch:
    os._exit(1)


@pytest.mark.slow
def test_every_sample_is_read_by_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(70):
        (tmp_path / str(index % 2)).mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / str(index % 2) / f"{index:02}.png")
    (tmp_path / "1" / "33.png").write_bytes(b"no picture")
    data = load_data(Component(name="image-folder", params={"path": ".", "size": [4, 4]}), tmp_path)
    fields = {"input": data.info.input, "target": data.info.target}
    (expected,) = every_sample.read_all(data, fields, 1, lambda more: None)
    monkeypatch.setattr(every_sample, "FEW", 10)
    told: list[int] = []
    assert every_sample.read_all(data, fields, 2, told.append) == (expected,)
    assert sum(told) == 70
    broken = LoadedData(SampleSplit(40, ending), None, pieces.data().info, "0", "mine")
    with pytest.raises(EpochalError, match="a process that read the data has died"):
        every_sample.read_all(broken, fields, 2, lambda more: None)


class Ending(Split):
    """A dataset that ends the process which reads from it."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __len__(self) -> int:
        return 8

    def fetch(self, indices: list[int]) -> dict[str, torch.Tensor]:
        if self.how == "sys.exit":
            sys.exit(5)
        if self.how == "os._exit":
            os._exit(5)
        return {}


@pytest.mark.parametrize("how", ["sys.exit", "os._exit"])
def test_a_dataset_that_ends_its_process_is_an_error_that_names_the_line(how: str) -> None:
    reader = _Reader(
        Fetch(Ending(how), {}, 0)
    )  # as in a loader process, which torch takes 5 s to end after an exception
    answer = reader[_request([0], 1)]
    assert isinstance(answer, CodeError)
    assert re.match(rf"your code ended the interpreter.*line \d+: {how}\(5\)", str(answer))
