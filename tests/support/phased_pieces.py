"""A small GAN whose noise is a function of the samples, so that any number of workers draws the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import training_pieces as pieces
from epochal.catalog.data import Batch
from epochal.catalog.task import Loss, Phase
from epochal.training.phases import OnePhase


class Gan(nn.Module):
    """x: (batch, features): whether they are real; ``generator`` makes such of (batch, 2)."""

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        inside = [nn.BatchNorm1d(8)] if norm else []
        self.generator = nn.Sequential(nn.Linear(2, 8), *inside, nn.Tanh(), nn.Linear(8, pieces.FEATURES))
        self.discriminator = nn.Sequential(
            nn.Sequential(nn.Linear(pieces.FEATURES, 16), nn.LeakyReLU(0.2)), nn.Linear(16, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.discriminator(x)


def normed_gan() -> nn.Module:
    return Gan(norm=True)


class Adversarial:
    """Nothing is detached: that a phase changes its own parameters alone is the stepper's doing."""

    phases = (Phase("discriminator", ("discriminator.*",)), Phase("generator", ("generator.*",)))

    def loss(self, model: nn.Module, batch: Batch, phase: Phase | None = None) -> Loss:
        if phase is None:
            both = [self.loss(model, batch, one) for one in self.phases]
            return both[0]._replace(total=both[0].total + both[1].total)
        real = batch["input"]
        fake = model.get_submodule("generator")(real[:, :2].sin())
        verdict = model(fake)
        if phase.name == "generator":
            return Loss(F.softplus(-verdict).sum(), self.weight(batch), verdict, {"fooled": (verdict > 0).sum()})
        judged = model(real)
        return Loss(F.softplus(-judged).sum() + F.softplus(verdict).sum(), self.weight(batch), judged)

    def weight(self, batch: Batch) -> Tensor | None:
        return None

    def metrics(self) -> Any:
        import torchmetrics

        return torchmetrics.MetricCollection({"mean": torchmetrics.MeanMetric()})

    def update(self, metrics: Any, outputs: Any, batch: Batch) -> None:
        metrics.update(outputs)


class WeightedAdversarial(Adversarial):
    """What a batch counts for is known to its worker alone."""

    def weight(self, batch: Batch) -> Tensor | None:
        return (batch["target"] + 0.5).sum()


def alone(task: Adversarial, number: int) -> OnePhase:
    return OnePhase(task, task.phases[number])


def plain_loop(job: Any, optimizers: Any, build: Any = Gan) -> dict[str, list[float]]:
    """What a person would write for one process: an optimizer a phase."""
    from epochal.training.sampler import Sampler

    setup = pieces.setup(job, build)
    model, train, task = setup.model, setup.data.train, Adversarial()
    parts = [model.get_submodule(phase.name) for phase in task.phases]
    made = [optimizers(dict(part.named_parameters())) for part in parts]
    sampler = Sampler(len(train), job.train.global_batch_size, job.train.seed)
    total = job.train.epochs * sampler.steps_per_epoch
    history: dict[str, list[float]] = {"train/loss": [], "train/discriminator_loss": [], "train/generator_loss": []}
    for step in range(total):
        epoch, index = divmod(step, sampler.steps_per_epoch)
        rows = sampler.order(epoch)[index * job.train.global_batch_size :][: job.train.global_batch_size]
        batch, sums = train.fetch(rows.tolist()), 0.0
        for phase, optimizer, part in zip(task.phases, made, parts, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] = optimizer.defaults["lr"] * (1 - step / total)
            model.zero_grad()
            loss = task.loss(model, batch, phase).total / len(rows)
            loss.backward()
            if job.train.clip_grad_norm:
                torch.nn.utils.clip_grad_norm_(part.parameters(), job.train.clip_grad_norm)
            optimizer.step()
            history[f"train/{phase.name}_loss"].append(loss.item())
            sums += loss.item()
        history["train/loss"].append(sums)
    return history
