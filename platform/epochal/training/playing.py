"""Batches from environments: a worker's lanes are played with the model as it is, and give what came of it."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from epochal.catalog.environment import MOST_SEED, Acts, Env, Environment, Memory, Sample, Step, batch_of, returns, seen
from epochal.errors import EpochalError
from epochal.spec.job import Train
from epochal.training import seeding
from epochal.training.loader import Loaded
from epochal.training.parallel import Strategy
from epochal.training.sampler import part
from epochal.training.worker import Worker

State = Mapping[str, Any]
"""What a checkpoint kept of one worker's source, as plain JSON values."""


@dataclass
class Played:
    """One lane: an environment, and the newest steps in it.

    All follows from the seeds of its episodes and the actions in them, so that these are what a checkpoint keeps: as
    far back as the steps that are remembered.
    """

    env: Env
    seed: int
    number: int
    size: int
    """Steps that are remembered; 0 where each is learned from at once."""
    steps: int = 0
    memory: dict[int, Step] = field(default_factory=dict)
    """By their places, which they keep: numbers from 0 on."""
    episodes: list[list[int]] = field(default_factory=list)
    """The actions of each, of those that are kept."""
    ended: int = 0
    """Episodes that are not kept any more."""
    now: Tensor = field(init=False)
    """What is seen before the next step."""
    _episode: int = field(init=False)

    def __post_init__(self) -> None:
        self._begin()

    def step(self, action: int) -> Step:
        after, reward, terminal, cut, _ = self.env.step(action)
        step = Step(self.now, action, float(reward), seen(after), bool(terminal), bool(terminal or cut), self._episode)
        if self.size:
            self.memory[self.steps % self.size] = step
        self.steps += 1
        self.episodes[-1].append(action)
        self.now = step.after
        if step.last:
            self._begin()
        return step

    def _begin(self) -> None:
        kept = sum(map(len, self.episodes))
        while self.episodes and kept - len(self.episodes[0]) >= self.size:
            kept -= len(self.episodes.pop(0))
            self.ended += 1
        self.episodes.append([])
        self._episode = self._seed_of(self.ended + len(self.episodes) - 1)
        self.now = seen(self.env.reset(seed=self._episode)[0])

    def _seed_of(self, episode: int) -> int:
        return seeding.derive(self.seed, "episode", self.number, episode) % MOST_SEED

    def begin_at_random(self, count: int, actions: int) -> None:
        """Take ``count`` steps, each one of so many ``actions``."""
        drawn = np.random.default_rng(seeding.derive(self.seed, "at random", self.number))
        for action in drawn.integers(0, actions, count).tolist():
            self.step(action)

    def state(self) -> dict[str, Any]:
        episodes = [list(actions) for actions in self.episodes]
        return {"steps": self.steps, "ended": self.ended, "episodes": episodes, "now": _digest(self.now)}

    def go_on(self, state: State) -> None:
        """Play again what was played, from the first episode that was kept.

        Raises:
            EpochalError: something else came of it.
        """
        self.ended, self.episodes = state["ended"], []
        self.steps = state["steps"] - sum(map(len, state["episodes"]))
        self._begin()
        for action in [action for actions in state["episodes"] for action in actions]:
            self.step(action)
        if _digest(self.now) != state["now"]:
            told = f"lane {self.number} of the environment: the actions of {len(state['episodes'])} episodes, played"
            raise EpochalError(
                f"{told} again, came to something else than before: the training cannot go on from its checkpoint",
                "an episode has to follow from reset(seed=...) and the actions alone, and nothing be installed anew",
            )


def _digest(observation: Tensor) -> str:
    return sha256(observation.numpy().tobytes()).hexdigest()[:16]


@dataclass
class PlayedSource:
    """Lanes are shared out whole among the workers. Before an optimizer step each of them takes some steps of its own,
    with the weights as they are then."""

    environment: Environment
    task: Acts
    train: Train
    strategy: Strategy
    steps_per_epoch: None = None
    _lanes: list[Played] = field(default_factory=list)

    def read(self, worker: Worker, first: int, last: int, states: Iterable[State]) -> Generator[Loaded]:
        lanes, size = self.environment.lanes, self.train.global_batch_size
        memory = self.task.memory(self.strategy.module)
        before: dict[str, Any] = {}
        for state in states:
            before |= state.get("lanes", {})
        self._lanes = []
        try:
            for number in range(*part(lanes, worker.rank, worker.world_size)):
                kept = -(-memory.size // lanes) if memory else 0
                self._lanes.append(Played(self.environment.make(), self.train.seed, number, kept))
                if str(number) in before:
                    self._lanes[-1].go_on(before[str(number)])
                elif memory:
                    self._lanes[-1].begin_at_random(-(-memory.random_steps // lanes), self.environment.actions)
            for step in range(first, last):
                samples = self._samples(memory, size // lanes, step)
                batch = {name: one.to(worker.device) for name, one in batch_of(samples).items()}
                yield Loaded(batch, len(samples), size)
        finally:
            for played in self._lanes:
                played.env.close()

    def _samples(self, memory: Memory | None, takes: int, step: int) -> list[Sample]:
        """``takes`` samples of each lane."""
        seed, discount = self.train.seed, self.task.discount
        drawn = [np.random.default_rng(seeding.derive(seed, "play", one.number, step)) for one in self._lanes]
        steps = self._steps(drawn, max(1, round(takes / memory.reuse)) if memory else takes, step)
        if memory is None:
            return [one for lane in steps for one in returns(lane, discount)]
        return [
            sample
            for lane, one in zip(self._lanes, drawn, strict=True)
            for place in one.integers(0, len(lane.memory), takes).tolist()
            for sample in returns([lane.memory[place]], discount)
        ]

    def _steps(self, drawn: Sequence[np.random.Generator], count: int, step: int) -> list[list[Step]]:
        """``count`` steps of each lane, with the random numbers of its own; all lanes act at once."""
        device, model = self.strategy.worker.device, self.strategy.module
        steps: list[list[Step]] = [[] for _ in self._lanes]
        numbers = np.stack([one.random((count, 2)) for one in drawn], axis=1)
        with torch.no_grad(), _evaluation(model):
            for each in torch.from_numpy(numbers).to(device):
                seen_now = torch.stack([lane.now for lane in self._lanes]).to(device)
                actions = self.task.act(model, seen_now, each, step).tolist()
                for lane, action, taken in zip(self._lanes, actions, steps, strict=True):
                    taken.append(lane.step(action))
        return steps

    def state(self) -> dict[str, Any]:
        return {"lanes": {str(lane.number): lane.state() for lane in self._lanes}}


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    model.eval()
    try:
        yield
    finally:
        model.train()
