"""Training data that the model makes itself: what it does in environments, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, SupportsFloat, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from epochal.catalog.data import Batch, DataInfo, Field

MOST_SEED = 2**31
"""Of an episode: environments of somebody's own may take no greater ones."""


class Env(Protocol):
    """One environment, as gymnasium has it: https://gymnasium.farama.org/api/env."""

    def reset(self, *, seed: int | None = None) -> tuple[Any, dict[str, Any]]: ...

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]: ...

    def close(self) -> None: ...


class Environment(Protocol):
    """Makes environments of so many ``actions``. ``lanes`` of them are played side by side, however many workers there
    are, and each gives as many samples to every batch.

    An episode has to follow from the seed of its ``reset`` and the actions alone, and to come to an end: that is how a
    training goes on from a checkpoint.
    """

    @property
    def lanes(self) -> int: ...

    @property
    def actions(self) -> int: ...

    def make(self) -> Env: ...


@dataclass(frozen=True)
class Memory:
    """What a task keeps to learn from more than once: the newest ``size`` steps of all lanes together, after
    ``random_steps`` at random before the first. Each is learned from ``reuse`` times, on the average."""

    size: int
    random_steps: int
    reuse: int


@runtime_checkable
class Acts(Protocol):
    """A task whose samples are what the model does. Their fields are those of ``experience``."""

    discount: float
    """What a reward is worth that comes a step later."""

    def memory(self, model: nn.Module) -> Memory | None:
        """None: the model learns from each step once, while its weights are those that it was taken with."""

    def act(self, model: nn.Module, observations: Tensor, drawn: Tensor, step: int) -> Tensor:
        """The actions, (batch,), at optimizer step ``step``; ``drawn`` (batch, 2) are random numbers in [0, 1)."""


def experience(observation: Field, environment: Environment) -> DataInfo:
    """The fields of a step that was taken: ``input`` was seen, the action ``target`` brought ``reward``, and what came
    after is worth ``discount`` times the worth of ``next``: 0 where the episode was over.

    Of several steps in a row ``reward`` is the discounted sum, and ``next`` is what was seen after them. ``episode`` is
    the seed that it began with.
    """
    more = {"reward": Field(()), "discount": Field(()), "next": observation, "episode": Field((), torch.int64)}
    return DataInfo(observation, Field((), torch.int64, classes=environment.actions), more, environment=environment)


class Step(NamedTuple):
    """One step of an episode. ``terminal``: what follows is worth nothing; ``last``: the episode was over, perhaps for
    its length alone."""

    before: Tensor
    action: int
    reward: float
    after: Tensor
    terminal: bool
    last: bool
    episode: int


def seen(observation: Any) -> Tensor:
    """An observation as models take it: real values, and bytes as such from 0 to 1."""
    values = np.asarray(observation)
    scale = np.float32(255 if values.dtype == np.uint8 else 1)
    return torch.from_numpy(np.array(np.asarray(values, np.float32) / scale))  # a copy, in any case


class Sample(NamedTuple):
    """What is learned from a step, as ``experience`` has it."""

    input: Tensor
    target: int
    reward: float
    discount: float
    next: Tensor
    episode: int


def returns(steps: Sequence[Step], discount: float) -> list[Sample]:
    """A sample for each of some steps in a row, with the rewards up to the last of them, or of its episode: the n-step
    returns of Mnih et al. 2016 (https://arxiv.org/abs/1602.01783), without what the model adds for ``next``."""
    found: list[Sample] = []
    for step in reversed(steps):
        reward, worth, after = step.reward, 0.0 if step.terminal else discount, step.after
        if found and not step.last:
            later = found[-1]
            reward, worth, after = reward + discount * later.reward, discount * later.discount, later.next
        found.append(Sample(step.before, step.action, reward, worth, after, step.episode))
    return found[::-1]


def batch_of(samples: Sequence[Sample]) -> Batch:
    """At least one of them."""
    columns = zip(Sample._fields, zip(*samples, strict=True), strict=True)
    return {name: torch.stack(one) if isinstance(one[0], Tensor) else torch.tensor(one) for name, one in columns}
