"""Environments of gymnasium, in which a model acts: CartPole, or your own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
from pydantic import Field as Bounds

from epochal.catalog.data import Batch, Field, LoadedData, SampleSplit
from epochal.catalog.entry import Dataset, Params
from epochal.catalog.environment import MOST_SEED, Env, Sample, Step, batch_of, experience, returns, seen
from epochal.catalog.understood import Understood
from epochal.errors import EpochalError
from epochal.redaction import named

_LOOKED_AT = 64
"""Steps at random that are looked at beforehand."""


class GymnasiumParams(Params):
    id: Annotated[str, Bounds(min_length=1)]
    """What gymnasium calls the environment: `CartPole-v1`; `my_module:Maze-v0` imports your own first. Its actions are
    discrete, its observations real values or bytes of a fixed shape."""
    params: dict[str, Any] = {}
    """What `gymnasium.make` takes beside the name: `max_episode_steps`, or those of the environment."""
    lanes: Annotated[int, Bounds(ge=1, le=4096)] = 8
    """Environments that are played side by side: a multiple of the number of workers. Each gives the same number of
    samples to every batch."""
    validation: Annotated[int, Bounds(ge=0)] = 20
    """Episodes that are played at each validation, always the same, with the actions that the model takes for best."""
    test: Annotated[int, Bounds(ge=0)] = 0
    """Other episodes, that are played once after the training."""
    seed: Annotated[int, Bounds(ge=0, lt=2**32)] = 0
    """Which episodes those are; apart from the training's seed, so that runs can be compared."""


@dataclass(frozen=True)
class Gymnasium:
    """``params`` are those of ``gymnasium.make``."""

    name: str
    params: Mapping[str, Any]
    lanes: int
    actions: int

    def make(self) -> Env:
        """
        Raises:
            EpochalError: gymnasium has no such environment, or it refuses the parameters.
        """
        import gymnasium

        try:
            return cast(Env, gymnasium.make(self.name, disable_env_checker=True, **self.params))
        except Exception as error:  # whatever an environment's own code raises
            raise EpochalError(f"gymnasium cannot make {self.name}: {named(error)}", "see data.params") from error


@dataclass(frozen=True)
class _Begun:
    """Reads how episodes begin: their first observation and their seed."""

    environment: Gymnasium
    part: str

    def __call__(self, index: int) -> Batch:
        seed = int.from_bytes(sha256(f"{self.part}/{index}".encode()).digest()[:8], "big") % MOST_SEED
        env = self.environment.make()
        first = seen(env.reset(seed=seed)[0])
        env.close()
        return _one(Sample(first, 0, 0.0, 0.0, first, seed))


@dataclass(frozen=True)
class _AtRandom:
    """Reads steps that were taken at random."""

    samples: tuple[Sample, ...]

    def __call__(self, index: int) -> Batch:
        return _one(self.samples[index])


def _one(sample: Sample) -> Batch:
    """Without a batch dimension."""
    return {name: values[0] for name, values in batch_of([sample]).items()}


def build(params: GymnasiumParams, folder: Path) -> LoadedData:
    """input: the observation, as the environment has it, bytes from 0 to 1; target: the action."""
    if find_spec("gymnasium") is None:
        told = "the dataset gymnasium needs gymnasium, which is not installed here"
        raise EpochalError(told, "pip install 'epochal[gymnasium]'")
    environment = Gymnasium(params.id, params.params, params.lanes, actions=0)
    env = environment.make()
    observation, actions = _spaces(env, params.id)
    environment = replace(environment, actions=actions)
    steps = _at_random(env, actions, params.seed)
    validation, test = (
        SampleSplit(count, _Begun(environment, f"{part}/{params.seed}")) if count else None
        for part, count in (("validation", params.validation), ("test", params.test))
    )
    told = f"{params.lanes} environments side by side, of {actions} actions"
    described = json.dumps([params.id, params.params, [one.before.tolist() for one in steps]], default=str)
    return LoadedData(
        SampleSplit(len(steps), _AtRandom(tuple(returns(steps, 1.0)))),
        validation,
        experience(observation, environment),
        sha256(described.encode()).hexdigest(),
        params.id,
        (Understood(params.id, told, note=f"an observation has the shape {observation.shape}"),),
        test=test,
    )


def _spaces(env: Any, name: str) -> tuple[Field, int]:
    """What is seen, and how many actions there are.

    Raises:
        EpochalError: they are of another kind, episodes may have no end, or do not follow from their seed.
    """
    from gymnasium.spaces import Box, Discrete

    spec = env.spec
    if spec is not None and spec.nondeterministic:
        raise EpochalError(f"{name} does not follow from its seed and the actions: no training could go on with it")
    if spec is not None and spec.max_episode_steps is None:
        raise EpochalError(f"the episodes of {name} may have no end", "data.params.params: {max_episode_steps: 1000}")
    if not isinstance(env.action_space, Discrete) or env.action_space.start:
        told = f"the actions of {name} are {env.action_space}"
        raise EpochalError(told, "those that it has to have are Discrete(n), from 0 on")
    space = env.observation_space
    if not isinstance(space, Box):
        told = f"the observations of {name} are {type(space).__name__}, and models take Box"
        raise EpochalError(told, "use a wrapper of gymnasium's in an environment of yours")
    return Field(tuple(space.shape)), int(env.action_space.n)


def _at_random(env: Env, actions: int, seed: int) -> list[Step]:
    drawn = np.random.default_rng(seed).integers(0, actions, _LOOKED_AT).tolist()
    steps: list[Step] = []
    before = seen(env.reset(seed=seed)[0])
    for number, action in enumerate(drawn):
        after, reward, terminal, cut, _ = env.step(action)
        steps.append(Step(before, action, float(reward), seen(after), terminal, terminal or cut, seed))
        before = steps[-1].after
        if terminal or cut:
            before = seen(env.reset(seed=seed + number + 1)[0])
    env.close()
    return steps


ENTRY = Dataset(
    summary="Environments of gymnasium, whose samples are what the model does in them",
    source="Towers et al. 2024, Gymnasium, https://arxiv.org/abs/2407.17032",
    params=GymnasiumParams,
    build=build,
    task="reinforcement-learning",
    stream=True,
)
