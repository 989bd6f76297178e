"""Models and tasks whose results depend on how samples are shared among workers and forward passes."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

import training_pieces as pieces
from epochal.catalog.data import Batch
from epochal.catalog.task import Loss

FEATURES, CLASSES = pieces.FEATURES, pieces.CLASSES


class Plain(nn.Module):
    """x: (batch, features)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, 16)
        self.last = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)))


class Activated(nn.BatchNorm1d):
    """As timm's batch norms, which apply the activation too."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class OwnStatistics(Plain):
    """A running mean, as people write it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(FEATURES))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x):
            self.mean.lerp_(x.detach().mean(0), 0.1)
        return super().forward(x - self.mean)


class MemoryBank(Plain):
    """The buffer is replaced, not written."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bank", torch.zeros(8, FEATURES))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x):
            self.bank = torch.cat([x.detach(), self.bank])[:8]
        return super().forward(x + self.bank.mean(0))


class FunctionalNorm(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("var", torch.ones(FEATURES))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.batch_norm(x, self.mean, self.var, training=self.training))


class InstanceNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm1d(2, track_running_stats=True)
        self.last = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(x.view(-1, 2, 3)).flatten(1))


class ActNorm(Plain):
    """A parameter whose first value is that of the first batch."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(FEATURES))
        self.started = False

    def forward(self, x: Tensor) -> Tensor:
        if self.training and not self.started and len(x):
            self.started = True
            self.scale.data.copy_(1 / (x.detach().std(0) + 1e-3))
        return super().forward(x * self.scale)


class Counter(Plain):
    """Forward passes are counted, in training."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.passes += 1
        return super().forward(x) / (1 + self.passes / 10)


class SpectralNorm(Plain):
    """A power iteration in each pass."""

    def __init__(self) -> None:
        super().__init__()
        nn.utils.parametrizations.spectral_norm(self.first)


class Centred(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0) if len(x) else x


class OwnNormalisation(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.centred = Centred()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.centred(x))


class LayerDrop(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.middle = nn.Linear(16, 16)

    def left_out(self, x: Tensor) -> bool:
        return self.training and bool(torch.rand(()) < 0.5)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(x))
        return self.last(hidden if self.left_out(x) else hidden + self.middle(hidden))


class Branch(LayerDrop):
    """Samples decide, so that workers differ in what they leave out."""

    def left_out(self, x: Tensor) -> bool:
        return not (len(x) and bool(x[:, 0].max() > 1.2))


class LeftOutByTheSecond(LayerDrop):
    """From its third pass on, and by that worker alone."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0

    def left_out(self, x: Tensor) -> bool:
        self.passes += 1
        return self.passes > 2 and dist.is_initialized() and dist.get_rank() == 1


class EveryThird(LayerDrop):
    """Workers leave out the same, each third step."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))

    def left_out(self, x: Tensor) -> bool:
        self.steps += self.training
        return self.training and bool(self.steps % 3 == 0)


class Unused(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.pooler = nn.Linear(4, 4)


class FunctionalDropout(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.dropout(x, 0.5, self.training))


class Mean(pieces.Classification):
    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        outputs = model(batch["input"])
        return Loss(F.cross_entropy(outputs, batch["target"]), None, outputs)


class Contrastive(pieces.Classification):
    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        outputs = model(batch["input"])
        return Loss(F.cross_entropy(outputs @ outputs.T, torch.arange(len(outputs)), reduction="sum"), None, outputs)


class MeanWeight(pieces.WeightedClassification):
    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        loss = super().loss(model, batch)
        return loss._replace(weight=loss.weight / len(batch["target"]))


class Ignoring(pieces.Classification):
    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        outputs, target = model(batch["input"]), batch["target"]
        total = F.cross_entropy(outputs, target, reduction="sum", ignore_index=2)
        return Loss(total, (target != 2).sum(), outputs)
