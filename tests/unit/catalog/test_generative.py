"""What tasks that make samples draw, and how far it is from real ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from epochal.catalog.architectures import ARCHITECTURES
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.frechet import FEATURES, FrechetDistance
from epochal.catalog.task import Samples
from epochal.catalog.tasks import TASKS
from epochal.catalog.tasks.diffusion import signal_of
from epochal.catalog.tasks.sample_noise import normal_of, uniform_of
from epochal.errors import EpochalError

DIGITS = DataInfo(Field((1, 8, 8)), Field((), torch.int64, 10))


def _normal(rows: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, *shape, generator=torch.Generator().manual_seed(seed))


def test_a_samples_noise_depends_on_it_alone() -> None:
    samples = _normal(6, 1, 8, 8)
    noise = normal_of(samples, (3, 5))
    assert torch.equal(noise[2:3], normal_of(samples[2:3], (3, 5)))
    assert torch.equal(noise[[4, 0]], normal_of(samples[[4, 0]], (3, 5)))
    assert normal_of(samples[:0], (3, 5)).shape == (0, 3, 5)
    nearly = samples.clone()
    nearly[0, 0, 0, 0] += 1e-6
    assert (normal_of(nearly, (3, 5))[0] != noise[0]).all()


@pytest.mark.parametrize("samples", [_normal(4000, 3), torch.eye(64)[:1].repeat(1, 80)], ids=["many", "long"])
def test_noise_is_normal_and_independent(samples: Tensor) -> None:
    drawn = normal_of(samples, (20000 // len(samples), 4)).flatten(0, 1).double()
    covariance = torch.cov(drawn.T)
    torch.testing.assert_close(drawn.mean(0), torch.zeros(4).double(), rtol=0, atol=0.04)
    torch.testing.assert_close(covariance, torch.eye(4).double(), rtol=0, atol=0.05)
    assert (drawn.abs() > 1.96).double().mean() == pytest.approx(0.05, abs=0.005)
    uniform = uniform_of(samples, (8,))
    assert 0 < uniform.min() <= uniform.max() < 1
    assert not torch.equal(uniform, uniform_of(samples, (8,), stream=1))


def test_the_greatest_number_of_a_sample_is_below_one() -> None:
    drawn = uniform_of(torch.tensor([[463448.5]]), ())
    assert drawn.item() == 1 - 2**-24
    assert [int(drawn * steps) for steps in (1, 1000, 4001)] == [0, 999, 4000]


def test_the_frechet_distance_of_gaussians_is_known() -> None:
    scales = torch.tensor([1.0, 2.0, 0.5])
    real, made = _normal(40000, 3), _normal(40000, 3, seed=1) * scales + torch.tensor([1.0, 0.0, -2.0])
    distance = FrechetDistance(3)
    for part in (slice(0, 10000), slice(10000, None)):
        distance.update(real[part], made[part])
    assert float(distance.compute()) == pytest.approx(5 + float((scales - 1).square().sum()), rel=0.03)
    distance.reset()
    distance.update(real, real)
    assert float(distance.compute()) == pytest.approx(0, abs=1e-9)


def test_many_values_are_projected_alike_every_time() -> None:
    real, made = _normal(300, 2, 10, 10), _normal(300, 2, 10, 10, seed=1) + 1
    found = []
    for _ in range(2):
        distance = FrechetDistance(200)
        distance.update(real, made)
        found.append(float(distance.compute()))
    assert found[0] == found[1] > FEATURES / 3


def test_made_samples_are_the_same_in_every_validation_and_drawn_in_training() -> None:
    model = ARCHITECTURES.get("dcgan").build(ARCHITECTURES.get("dcgan").params(latent=4, channels=[8]), DIGITS)
    task, batch = TASKS.get("adversarial").build(TASKS.get("adversarial").params(), DIGITS), DIGITS.example(6)
    drawn = [task.loss(model, batch).outputs["made"] for _ in range(2)]
    assert not torch.equal(*drawn)
    model.eval()
    whole, part = task.loss(model, batch), task.loss(model, {name: one[3:] for name, one in batch.items()})
    torch.testing.assert_close(whole.outputs["made"][3:], part.outputs["made"])
    assert whole.total == sum(whole.logs.values())


@pytest.mark.parametrize("loss", ["non_saturating", "hinge"])
def test_each_part_lowers_its_own_loss(loss: str) -> None:
    torch.manual_seed(0)
    architecture, chosen = ARCHITECTURES.get("dcgan"), TASKS.get("adversarial")
    model = architecture.build(architecture.params(latent=4, channels=[8], norm="none"), DIGITS).eval()
    task, batch = chosen.build(chosen.params(loss=loss), DIGITS), DIGITS.example(32)
    for phase in task.phases:
        part = torch.optim.SGD(model.get_submodule(phase.name).parameters(), lr=0.01)
        before = task.loss(model, batch, phase).total
        before.backward()
        part.step()
        assert task.loss(model, batch, phase).total < before


def test_only_models_that_generate_fit() -> None:
    task = TASKS.get("adversarial").build(TASKS.get("adversarial").params(), DIGITS)
    with pytest.raises(EpochalError, match="not a Linear"):
        task.loss(torch.nn.Linear(8, 1), DIGITS.example())
    with pytest.raises(EpochalError, match="8 x 8 pixels cannot be halved 4 times"):
        ARCHITECTURES.get("dcgan").build(ARCHITECTURES.get("dcgan").params(), DIGITS)


class Oracle(torch.nn.Module):
    """Knows the only sample that there is, ``one`` (...), and so the noise in any other; ``signal`` by time."""

    def __init__(self, one: Tensor, signal: list[float]) -> None:
        super().__init__()
        self.one, self.signal = one, torch.tensor(signal)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        kept = self.signal[time].reshape(-1, 1, 1, 1)
        return (x - kept.sqrt() * self.one) / (1 - kept).sqrt()


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "val"])
def test_who_knows_the_noise_has_no_loss_and_draws_the_sample(schedule: str, training: bool) -> None:
    chosen = TASKS.get("diffusion")
    task = chosen.build(chosen.params(schedule=schedule, metrics=["mse", "frechet"]), DIGITS)
    one = _normal(1, 8, 8)
    model = Oracle(one, signal_of(schedule, 1000)).train(training)
    loss = task.loss(model, {"input": one.expand(16, 1, 8, 8)})
    assert float(loss.total) == pytest.approx(0, abs=1e-4)
    drawn = task.draw(model, _normal(16, 1, 8, 8, seed=1))
    torch.testing.assert_close(drawn, one.expand_as(drawn), rtol=0, atol=1e-3)
    assert ("drawn" in loss.outputs) is not training
    bounded = chosen.build(chosen.params(schedule=schedule, range=(-0.5, 0.5)), DIGITS)
    torch.testing.assert_close(bounded.draw(model, drawn), one.clamp(-0.5, 0.5).expand_as(drawn))


def test_a_range_the_wrong_way_round_is_refused() -> None:
    """Each value would be clipped to the least."""
    chosen = TASKS.get("diffusion")
    with pytest.raises(EpochalError, match=r"the range is \[1.0, -1.0\]"):
        chosen.build(chosen.params(range=(1.0, -1.0)), DIGITS)


@pytest.mark.parametrize(("schedule", "steps"), [("linear", 1000), ("linear", 100), ("cosine", 1000)])
def test_little_noise_is_added_first_and_little_is_left_last(schedule: str, steps: int) -> None:
    signal = signal_of(schedule, steps)
    assert signal == sorted(signal, reverse=True)
    assert signal[0] > 0.99
    assert 0 < signal[-1] < 1e-4


def test_the_linear_schedule_is_the_papers() -> None:
    """Section 4: from 0.0001 to 0.02 in 1,000 steps, after which the distance from noise is about 1e-5 bits."""
    signal = torch.tensor(signal_of("linear", 1000), dtype=torch.float64)
    assert float(1 - signal[0]) == pytest.approx(1e-4)
    assert float(1 - signal[-1] / signal[-2]) == pytest.approx(0.02)
    assert float(signal[-1]) == pytest.approx(4.04e-5, rel=0.01)


def test_made_samples_are_shown_below_real_ones() -> None:
    real, made = torch.zeros(12, 1, 8, 8), torch.ones(12, 1, 8, 8)
    real[:, :, 0, 0] = 1.0  # the range of the real ones is that of the colours
    adversarial, diffusion = (
        TASKS.get(name).build(TASKS.get(name).params(), DIGITS) for name in ("adversarial", "diffusion")
    )
    sheet = adversarial.pictures(Samples({"input": real}, {"made": made}))["samples"]
    assert sheet.getpixel((sheet.width // 2, 3 * sheet.height // 4)) == (255, 255, 255)
    model = Oracle(made[0], signal_of("linear", 1000))
    model.register_parameter("any", torch.nn.Parameter(torch.zeros(1)))
    drawn = diffusion.pictures(Samples({"input": real}, {}, model=model))["samples"]
    assert drawn.height > 1.5 * sheet.height
    assert drawn.getpixel((drawn.width // 2 + 9, drawn.height - 12)) == (255, 255, 255)
    assert diffusion.pictures(Samples({"input": real}, {})) == {}
