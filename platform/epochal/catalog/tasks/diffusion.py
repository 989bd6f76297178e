"""Diffusion: the noise in samples to which some was added, so that new ones can be drawn by taking it away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import cos, pi, prod
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor, nn

from epochal.catalog.data import Batch, DataInfo
from epochal.catalog.entry import Params, TaskEntry
from epochal.catalog.task import Loss, NamedMetrics, Samples, fitting
from epochal.catalog.tasks.made_pictures import made_pictures
from epochal.catalog.tasks.sample_noise import normal_of, uniform_of
from epochal.errors import EpochalError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torchmetrics import Metric, MetricCollection

Name = Literal["mse", "frechet"]
DRAWING_STEPS = 25


class DiffusionParams(Params):
    steps: Annotated[int, Field(ge=2, le=100_000)] = 1000
    """In how many steps a sample becomes noise."""
    schedule: Literal["linear", "cosine"] = "linear"
    """How much noise each adds: `linear` is Ho's, `cosine` that of Nichol and Dhariwal 2021
    (https://arxiv.org/abs/2102.09672), better for small pictures."""
    range: Annotated[tuple[float, float], Field(strict=False)] | None = None
    """Least and greatest value of the data. What a drawn sample is taken to become is clipped to it in each step, as in
    Ho's code; without, a model that is not trained long draws anything."""
    metrics: Annotated[list[Name], Field(min_length=1)] = ["mse"]
    """What is measured at validation, besides the loss: `mse` of the noise over all values, and how far as many drawn
    samples are from the real ones (`frechet`, lower is better), for which the model runs 25 times."""


class Diffusion(NamedMetrics):
    """``model(x, time)`` gives the noise in ``x``, of its shape; time: (batch,), from 0 for the first step.

    Times and noise are drawn in training; in validation each sample has its own, always the same.
    """

    known_metrics = get_args(Name)

    def __init__(self, params: DiffusionParams, info: DataInfo) -> None:
        self._info = info
        self._steps = params.steps
        self._signal = signal_of(params.schedule, params.steps)
        self._range = params.range
        self.metric_names = tuple(params.metrics)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        x = batch["input"]
        if model.training:
            time, noise = torch.randint(self._steps, (len(x),), device=x.device), torch.randn_like(x)
        else:
            time, noise = (uniform_of(x, ()) * self._steps).long(), normal_of(x, tuple(x.shape[1:]))
        noisy = self._mixed(x, noise, time)
        found = fitting(model(noisy, time), x.shape, "diffusion")
        errors = (found - noise).square().flatten(1)
        outputs = {"found": found, "noise": noise}
        if "frechet" in self.metric_names and not model.training:
            # Made from other numbers than those of the noise above: the model has just been shown that.
            outputs["drawn"] = self.draw(model, normal_of(x + 1, tuple(x.shape[1:])))
        return Loss(errors.mean(1).sum(), None, outputs)

    @torch.no_grad()
    def draw(self, model: nn.Module, noise: Tensor, count: int = DRAWING_STEPS) -> Tensor:
        """Samples made of ``noise`` (batch, ...) in ``count`` steps, without further noise.

        DDIM: Song et al. 2021, https://arxiv.org/abs/2010.02502, equation 12 with sigma 0.
        """
        times = torch.linspace(self._steps - 1, 0, min(count, self._steps)).round().long().tolist()
        x = noise
        for now, after in zip(times, [*times[1:], None], strict=True):
            found = model(x, torch.full((len(x),), now, device=x.device)).to(x.dtype)
            kept, left = self._signal[now], 1.0 if after is None else self._signal[after]
            clean = (x - (1 - kept) ** 0.5 * found) / kept**0.5
            if self._range is not None:
                clean = clean.clamp(*self._range)
                # The noise that makes ``x`` of it now, or the next step would not be on the way to it.
                found = (x - kept**0.5 * clean) / (1 - kept) ** 0.5
            x = left**0.5 * clean + (1 - left) ** 0.5 * found
        return x

    def _mixed(self, x: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """What ``x`` has become at each sample's time, equation 4 of Ho et al."""
        kept = torch.tensor(self._signal, device=x.device)[time].reshape(-1, *[1] * (x.dim() - 1))
        return kept.sqrt() * x + (1 - kept).sqrt() * noise

    def unmeasurable(self, samples: int, targets: Tensor | None) -> Mapping[str, str]:
        return {"frechet": "it needs two validation samples, and there is one"} if samples < 2 else {}

    def metrics(self) -> MetricCollection:
        from torchmetrics import MeanSquaredError

        from epochal.catalog.frechet import FrechetDistance

        known: dict[str, Callable[[], Metric]] = {
            "mse": MeanSquaredError,
            "frechet": lambda: FrechetDistance(prod(self._info.input.shape)),
        }
        return self.named(known)

    def update(self, metrics: MetricCollection, outputs: Any, batch: Batch) -> None:
        from epochal.catalog.frechet import FrechetDistance

        for metric in metrics.values(copy_state=False):
            if isinstance(metric, FrechetDistance):
                metric.update(batch["input"], outputs["drawn"])
            else:
                metric.update(outputs["found"].flatten(), outputs["noise"].flatten())

    def pictures(self, samples: Samples) -> Mapping[str, Image | str]:
        """Real samples in the first row, drawn ones in the others."""
        x, drawn = samples.batch["input"], samples.outputs.get("drawn")
        if drawn is None and samples.model is not None:
            device = next(samples.model.parameters()).device
            noise = torch.randn(36, *x.shape[1:], generator=torch.Generator().manual_seed(0))
            drawn = self.draw(samples.model, noise.to(device)).float().cpu()
        return {} if drawn is None else made_pictures(x, drawn)


def signal_of(schedule: str, steps: int) -> list[float]:
    """The share of the original's variance that is left after each step: the paper's alpha bar.

    ``linear`` is scaled with the number of steps, as the paper's was for 1,000.
    """
    if schedule == "linear":
        scale = 1000 / steps
        betas = torch.linspace(1e-4 * scale, 0.02 * scale, steps, dtype=torch.float64)
    else:
        kept = [cos((step / steps + 0.008) / 1.008 * pi / 2) ** 2 for step in range(steps + 1)]
        betas = 1 - torch.tensor(kept[1:], dtype=torch.float64) / torch.tensor(kept[:-1], dtype=torch.float64)
    left: list[float] = (1 - betas.clamp(max=0.999)).cumprod(0).tolist()
    return left


def build(params: DiffusionParams, info: DataInfo) -> Diffusion:
    if not info.input.dtype.is_floating_point:
        raise EpochalError("diffusion needs an input of real values, and this one is of whole numbers")
    if params.range is not None and params.range[0] >= params.range[1]:
        raise EpochalError(f"diffusion: the range is {list(params.range)}", "give the least value and the greatest")
    return Diffusion(params, info)


ENTRY = TaskEntry(
    summary="The noise that was added to samples; metrics its error, and the Frechet distance of drawn samples",
    source="Ho et al. 2020, Denoising diffusion probabilistic models, https://arxiv.org/abs/2006.11239",
    params=DiffusionParams,
    build=build,
)
