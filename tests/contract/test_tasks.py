"""What every task of the catalog does with data that fits it."""

from __future__ import annotations

import operator
from collections.abc import Callable
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only
from torchmetrics import MetricCollection

import played_pieces
from epochal.catalog.architectures.dec import Dec, DecParams
from epochal.catalog.architectures.detector import Detections
from epochal.catalog.data import Batch, DataInfo, Field
from epochal.catalog.entry import TaskEntry
from epochal.catalog.losses import LOSSES
from epochal.catalog.task import Draws, FeedsMetrics, Samples, Task
from epochal.catalog.tasks import TASKS
from epochal.errors import EpochalError

INFOS = (
    DataInfo(Field((6,)), Field((), torch.int64, classes=7)),
    DataInfo(Field((6,)), Field(())),
    DataInfo(Field((6,)), Field((3,))),
    DataInfo(Field((6,)), Field((4,), torch.int64, classes=7)),
    DataInfo(Field((6,)), Field((2, 3), torch.int64, classes=7)),
    DataInfo(Field((6,), torch.int64, classes=9), Field((2, 2, 2), torch.int64, classes=7)),
    DataInfo(Field((6,)), Field((4,), torch.int64, classes=7), {"counted": Field((4,), torch.uint8, classes=2)}),
    DataInfo(Field((6,)), Field((2, 4)), {"labels": Field((2,), torch.int64, classes=4)}),
)


def pairs(source: int = 6, time: int = 4) -> DataInfo:
    """Token ids that are translated, as ``dates`` has them."""
    target = Field((time,), torch.int64, classes=7)
    lengths = {"length": Field((), torch.int64, source + 1), "target_length": Field((), torch.int64, time + 1)}
    inputs = ("input", "decoder_input", "length")
    return DataInfo(Field((source,), torch.int64, classes=9), target, {"decoder_input": target, **lengths}, inputs)


BUILT_IN = [name for name, _ in TASKS.built_in()]


def _infos() -> tuple[DataInfo, ...]:
    none = DataInfo(Field((6,), torch.int64, classes=9), Field((2, 2, 2), torch.int64, classes=7))
    candidates = {"candidates": Field((12,), torch.int64, classes=20)}
    ranked = DataInfo(Field((6,)), Field((), torch.int64, classes=12), candidates, inputs=("input", "candidates"))
    return (*INFOS, none, pairs(), ranked, played_pieces.info())


def _fitting(entry: TaskEntry) -> list[DataInfo]:
    fitting = []
    for info in _infos():
        try:
            entry.build(entry.params(), info)
        except EpochalError:
            continue
        fitting.append(info)
    return fitting


class Latent(nn.Module):
    """x: (batch, 6), to two latent numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(6, 4), nn.Linear(2, 6)
        self.eval()  # drawn numbers would differ from pass to pass

    def encode(self, x: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, -1)
        return mean, log_variance

    def decode(self, latent: Tensor) -> Tensor:
        return self.decoder(latent)


class Plain(nn.Module):
    """A linear layer from the input, whatever else it is called with."""

    def __init__(self, info: DataInfo) -> None:
        super().__init__()
        self.layer = nn.Linear(6, prod(info.target.predicted))
        self.shape = info.target.predicted

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        return self.layer(x.float()).unflatten(1, (*self.shape, 1))


class Detecting(nn.Module):
    """x: (batch, 6), to what is at four places of an image of 16 by 16 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 4 * 8)

    def forward(self, x: Tensor) -> Detections:
        said = self.linear(x).unflatten(1, (4, 8))
        places = torch.tensor([[4.0, 4, 8], [12, 4, 8], [4, 12, 8], [12, 12, 8]]).expand(len(x), -1, -1)
        sides = said[..., 3:7].exp() * torch.tensor([-8.0, -8.0, 8.0, 8.0])
        return Detections(said[..., :3], places[..., :2].repeat(1, 1, 2) + sides, said[..., 7], places)


class Gan(nn.Module):
    """x: (batch, 6), to a verdict (batch,)."""

    latent = 2

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.discriminator = nn.Linear(2, 6), nn.Linear(6, 1)
        self.eval()  # as for Latent

    def generate(self, noise: Tensor) -> Tensor:
        return self.generator(noise)

    def forward(self, x: Tensor) -> Tensor:
        return self.discriminator(x).flatten()


class Denoiser(nn.Linear):
    """x: (batch, 6), time: (batch,), to the noise in it."""

    def __init__(self) -> None:
        super().__init__(6, 6)
        self.eval()  # as for Latent

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return super().forward(x) + time[:, None] / 1000


class Frames(Plain):
    """Of the very shape that speech needs: its frames may be of another number than the characters."""

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        return super().forward(x).squeeze(-1)


OWN_MODELS: dict[str, Callable[[DataInfo], nn.Module]] = {
    "clustering": lambda info: Dec(DecParams(hidden=[5], latent=2), 6, info.target.width),
    "reinforcement-learning": lambda info: played_pieces.q_network(),
    "diffusion": lambda info: Denoiser(),
    "detection": lambda info: Detecting(),
    "adversarial": lambda info: Gan(),
    "reconstruction": lambda info: Plain(DataInfo(info.input, info.input)),
    "variational": lambda info: Latent(),
    "speech": Frames,
}
"""Where a linear layer to the target is none that the task is for."""


def _model(info: DataInfo, entry: TaskEntry) -> nn.Module:
    return next((made for name, made in OWN_MODELS.items() if entry is TASKS.get(name)), Plain)(info)


def _example(entry: TaskEntry, info: DataInfo, size: int) -> Batch:
    """A batch whose targets are what the task is for."""
    batch = info.example(size)
    if entry is TASKS.get("multi-label"):
        batch["target"] = (batch["target"] > 0).float()
    if entry is TASKS.get("detection"):
        batch["target"] = torch.tensor([4.0, 4.0, 12.0, 12.0]) + batch["target"]
    if entry is TASKS.get("speech"):  # what can be said in the four frames of the model; token 0 is the blank
        batch["target"], batch["target_length"] = batch["target"].clamp(min=1), batch["target_length"].clamp(max=2)
        batch["length"] = torch.full_like(batch["length"], 6)
    return batch


def _fed(task: Task, metrics: MetricCollection, outputs: Any, batch: Batch) -> None:
    if isinstance(task, FeedsMetrics):
        task.update(metrics, outputs, batch)
    else:
        metrics.update(outputs, batch["target"])


@pytest.fixture(params=BUILT_IN)
def entry(request: pytest.FixtureRequest) -> TaskEntry:
    return TASKS.get(request.param)


def test_some_data_fits_and_other_data_is_refused(entry: TaskEntry) -> None:
    assert 0 < len(_fitting(entry)) < len(_infos())


def test_the_loss_of_a_batch_is_the_sum_over_its_parts(entry: TaskEntry) -> None:
    for info in _fitting(entry):
        task, batch = entry.build(entry.params(), info), _example(entry, info, 10)
        model = _model(info, entry)
        parts = [
            {name: value[part] for name, value in batch.items()} for part in (slice(0, 3), slice(3, 3), slice(3, 10))
        ]
        whole, losses = task.loss(model, batch), [task.loss(model, part) for part in parts]
        torch.testing.assert_close(whole.total, torch.stack([loss.total for loss in losses]).sum())
        assert {len(output) for output in tree_leaves(whole.outputs)} == {10}
        sizes = [len(tree_leaves(loss.outputs)[0]) for loss in losses]
        assert whole.counts_for(10) == sum(loss.counts_for(size) for loss, size in zip(losses, sizes, strict=True))


def test_an_empty_batch_gives_a_zero_that_reaches_every_parameter(entry: TaskEntry) -> None:
    for info in _fitting(entry):
        task, model = entry.build(entry.params(), info), _model(info, entry)
        loss = task.loss(model, info.example(0)).total
        loss.backward()
        assert loss == 0
        assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


def test_what_a_model_says_in_16_bits_is_summed_in_fp32(entry: TaskEntry) -> None:
    for info in _fitting(entry):
        task, model = entry.build(entry.params(), info), _model(info, entry)
        with torch.autocast("cpu", torch.bfloat16):
            loss = task.loss(model, _example(entry, info, 10))
        assert {one.dtype for one in (loss.total, *loss.logs.values())} == {torch.float32}


@pytest.mark.parametrize("name", [name for name, _ in LOSSES.built_in() if LOSSES.get(name).target_kind == "class"])
def test_a_loss_in_16_bits_is_that_of_the_outputs_in_fp32(name: str) -> None:
    info, entry = INFOS[0], TASKS.get("classification")
    task = entry.build(entry.params(loss={"name": name}), info)
    outputs, batch = torch.randn(200, 7).bfloat16(), info.example(200)
    with torch.autocast("cpu", torch.bfloat16):
        loss = task.loss(lambda x: outputs, batch)  # type: ignore[arg-type]
    torch.testing.assert_close(loss.total, task.loss(lambda x: outputs.float(), batch).total)  # type: ignore[arg-type]


def test_what_it_draws_are_pictures_and_texts(entry: TaskEntry) -> None:
    for info in _fitting(entry):
        task, model, batch = entry.build(entry.params(), info), _model(info, entry), _example(entry, info, 10)
        if not isinstance(task, Draws):
            continue
        outputs = tree_map_only(Tensor, Tensor.detach, task.loss(model, batch).outputs)
        names = tuple(map(str, range(info.target.classes or 0)))
        # Text is continued from a few tokens, and the model of these tests knows one length.
        for shown in (None,) if entry is TASKS.get("language-modelling") else (None, model.eval()):
            with torch.no_grad():
                drawn = task.pictures(Samples(batch, outputs, names, shown))
            assert all(isinstance(one, str) or min(one.size) > 20 for one in drawn.values())


def test_metrics_over_two_parts_are_those_over_the_whole(entry: TaskEntry) -> None:
    for info in _fitting(entry):
        task, batch = entry.build(entry.params(), info), _example(entry, info, 10)
        outputs = task.loss(_model(info, entry).eval(), batch).outputs
        whole, parts = task.metrics(), task.metrics()
        _fed(task, whole, outputs, batch)
        for part in (slice(0, 4), slice(4, 10)):
            some = tree_map(operator.itemgetter(part), outputs)
            _fed(task, parts, some, {name: value[part] for name, value in batch.items()})
        torch.testing.assert_close(whole.compute(), parts.compute())
        assert all(value.isfinite() for value in whole.compute().values())
