"""What every dataset of the catalog does; a new one needs its parameters here only where it reads files."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import wave
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from epochal.catalog.build import build_model, build_task, load_data
from epochal.catalog.data import LoadedData
from epochal.catalog.datasets import DATASETS
from epochal.errors import EpochalError
from epochal.spec.section import Component

BUILT_IN = [name for name, _ in DATASETS.built_in()]


def _csv(folder: Path) -> dict[str, Any]:
    lines = [f"{i},{i * 0.5},{'red' if i % 3 else 'blue'},{i % 2}" for i in range(40)]
    (folder / "table.csv").write_text("\n".join(["id,size,colour,label", *lines]))
    return {"path": "table.csv", "target": "label", "exclude": ["id"]}


def _npz(folder: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    np.savez(folder / "arrays.npz", x=rng.normal(size=(40, 2, 3)), y=np.arange(40) % 4)
    return {"path": "arrays.npz"}


def _images(folder: Path) -> dict[str, Any]:
    for label in ("cat", "dog"):
        (folder / "images" / label).mkdir(parents=True)
        for index in range(10):
            Image.new("RGB", (9, 7), (index * 20, 10, 200)).save(folder / "images" / label / f"{index}.png")
    return {"path": "images", "size": [8, 6]}


def _tokens(folder: Path) -> dict[str, Any]:
    for name, count in (("a", 130), ("b", 93)):
        (np.arange(count) * 7 % 50).astype("<u2").tofile(folder / f"{name}.bin")
    return {"path": "*.bin", "length": 4, "validation": 0.2}


def _recordings(folder: Path) -> dict[str, Any]:
    (folder / "said").mkdir(exist_ok=True)
    for index in range(20):
        (folder / "said" / f"{index}.txt").write_text("a bc"[: 1 + index % 4])
        with wave.open(str(folder / "said" / f"{index}.wav"), "wb") as sound:
            sound.setparams((1, 2, 8000, 0, "NONE", ""))
            sound.writeframes(np.random.default_rng(index).integers(-999, 999, 800 + 80 * index, "<i2").tobytes())
    return {"path": "said", "mels": 8}


def _idx(folder: Path) -> dict[str, Any]:
    (folder / "mnist").mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (40, 5, 4), "u1"), np.arange(40, dtype="u1") % 4
    for name, values in (("train-images-idx3-ubyte", pixels), ("train-labels-idx1-ubyte", labels)):
        head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
        (folder / "mnist" / f"{name}.gz").write_bytes(gzip.compress(head + values.tobytes()))
    return {"path": "mnist"}


def _series(folder: Path) -> dict[str, Any]:
    lines = [f"{i},{(i * 7) % 24},{i % 5}" for i in range(60)]
    (folder / "series.csv").write_text("\n".join(["time,load,wind", *lines]))
    return {"path": "series.csv", "target": "load", "features": ["wind"], "time": "time", "window": 8, "horizon": 1}


def _shards(folder: Path) -> dict[str, Any]:
    for name in ("train-0", "train-1", "val"):
        with tarfile.open(folder / f"{name}.tar", "w") as archive:
            for number in range(12):
                array = io.BytesIO()
                np.save(array, np.full((2, 3), number / 12, "f4"))
                for suffix, content in (("npy", array.getvalue()), ("cls", str(number % 4).encode())):
                    member = tarfile.TarInfo(f"{number:02}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return {"path": "train-*.tar", "validation_path": "val.tar", "classes": 4}


# Of a longer horizon no window may lie on both sides of the border: those would be in neither part.
FILES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "csv": _csv, "series": _series, "wav-folder": _recordings, "idx": _idx, "npz": _npz, "image-folder": _images,
    "tokens": _tokens, "webdataset": _shards, "air-passengers": lambda _: {"horizon": 1},
    "gymnasium": lambda _: {"id": "CartPole-v1"},
    "tones": lambda _: {"samples": 30}, "dates": lambda _: {"samples": 100}, "ratings": lambda _: {"users": 20},
}  # fmt: skip


MADE_BY_SEED = (
    "synthetic", "shapes", "molecules", "dates", "ratings", "tones", "air-passengers", "series", "tokens", "webdataset",
    "gymnasium",
)  # fmt: skip
"""Datasets whose content depends on the seed too, and those whose parts do not."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("datasets")


@pytest.fixture(scope="module", params=BUILT_IN)
def component(request: pytest.FixtureRequest, folder: Path) -> Component:
    make = FILES.get(request.param, lambda _: {})
    return Component(name=request.param, params=make(folder))


@pytest.fixture(scope="module")
def data(component: Component, folder: Path) -> LoadedData:
    """Loaded once for all that look at it."""
    return load_data(component, folder)


def test_batches_have_the_shapes_and_types_of_the_info(data: LoadedData) -> None:
    for _, split in data.splits():
        batch = split.fetch([0, len(split) - 1, 0])
        assert set(batch) == set(data.info.fields)
        for name, field in data.info.fields.items():
            assert batch[name].shape == (3, *field.shape)
            assert batch[name].dtype == field.dtype
            assert batch[name].isfinite().all()
        assert torch.equal(batch["input"][0], batch["input"][2])


def test_labels_are_below_the_number_of_classes(data: LoadedData) -> None:
    for field_name, field in data.info.fields.items():
        if field.classes is not None:
            values = torch.cat([split.fetch(range(len(split)))[field_name].flatten() for _, split in data.splits()])
            assert values.min() >= 0
            assert values.max() < field.classes


def test_an_empty_share_keeps_shapes_and_types(data: LoadedData) -> None:
    batch = data.train.fetch([])
    for name, field in data.info.fields.items():
        assert batch[name].shape == (0, *field.shape)
        assert batch[name].dtype == field.dtype


def test_loading_twice_gives_the_same(component: Component, data: LoadedData, folder: Path) -> None:
    again = load_data(component, folder)
    assert again.digest == data.digest
    assert len(again.train) == len(data.train)
    ends = [0, len(data.train) - 1]
    assert torch.equal(again.train.fetch(ends)["input"], data.train.fetch(ends)["input"])


def test_the_digest_is_of_the_content_and_not_of_the_split(
    component: Component, data: LoadedData, folder: Path
) -> None:
    assert len(data.digest) == 64
    if component.name not in MADE_BY_SEED:  # the seed makes the content too, or is none
        other = load_data(Component(name=component.name, params={**component.params, "seed": 5}), folder)
        assert other.digest == data.digest
        batches = [split.fetch(range(len(split))) for split in (other.train, data.train)]
        assert any(not torch.equal(*(batch[name] for batch in batches)) for name in data.info.fields)


def test_the_validation_part_is_a_share_and_can_be_left_out(
    component: Component, data: LoadedData, folder: Path
) -> None:
    if data.endless:
        pytest.skip("what a stream is validated on is apart")
    if component.name == "text-records":
        pytest.skip("parts are of records, and a row has several")
    assert data.validation is not None
    total = len(data.train) + len(data.validation)
    if component.name == "karate-club":
        total = len(data.train)  # the graph is in both parts
    else:
        assert len(data.validation) == pytest.approx(total * 0.2, abs=5)
    whole = load_data(Component(name=component.name, params={**component.params, "validation": 0}), folder)
    assert whole.validation is None
    assert len(whole.train) == total


def test_the_test_part_is_the_same_whatever_is_validated_on(component: Component, folder: Path) -> None:
    if component.name in ("webdataset", "gymnasium"):
        pytest.skip("what a stream is validated on is apart")
    if component.name == "text-records":
        pytest.skip("parts are of records, and a row has several")
    parts = []
    for validation in (0.2, 0.4):
        params = {**component.params, "validation": validation, "test": 0.2}
        data = load_data(Component(name=component.name, params=params), folder)
        assert data.test is not None
        assert data.validation is not None
        total = len(data.train) + len(data.validation) + len(data.test)
        assert [len(data.validation), len(data.test)] == pytest.approx([validation * total, 0.2 * total], abs=5)
        parts.append(data.test.fetch(range(len(data.test)))["target"])
        if component.name == "digits":  # whose samples are all different
            inputs = torch.cat([split.fetch(range(len(split)))["input"] for _, split in data.splits()])
            assert len(torch.unique(inputs, dim=0)) == 1797
    if component.name not in ("diabetes", "air-passengers", "series"):  # whose scaling depends on what is trained on
        assert torch.equal(*parts)
    with pytest.raises(EpochalError, match=r"leave none to train on|leave nothing to train on"):
        load_data(Component(name=component.name, params={**component.params, "validation": 0.5, "test": 0.5}), folder)


def test_a_loader_process_can_be_given_the_splits(data: LoadedData) -> None:
    copy = pickle.loads(pickle.dumps(data.train))
    last = len(data.train) - 1
    assert torch.equal(copy.fetch([last])["input"], data.train.fetch([last])["input"])


class Zeros(nn.Module):
    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        return torch.zeros(len(x), *self.shape)


def test_the_dataset_has_a_task_of_its_own_that_fits(component: Component, data: LoadedData) -> None:
    task = build_task(None, component, data.info)
    target = data.info.target
    heard = component.name in ("tones", "wav-folder")  # something is said at every frame
    shape = (data.info.input.shape[0], target.width) if heard else target.predicted
    batch = data.train.fetch([0, 1, 2, 3] if len(data.train) > 3 else [0] * 4)
    model = Zeros(shape) if data.info.environment is None else build_model(Component(name="dqn"), data.info)
    loss = task.loss(model, batch)
    assert loss.total.isfinite()
    counted = batch["counted"].sum() if "counted" in batch else 4 * prod(target.shape)
    most = counted if target.classes is not None else 4
    assert loss.counts_for(4) == most or (data.info.more and 0 < loss.counts_for(4) <= most)  # some may be padding
