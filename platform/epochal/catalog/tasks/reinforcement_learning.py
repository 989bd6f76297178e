"""Reinforcement learning: a model learns from the rewards of what it does in an environment.

Which way follows from the model: values of actions by Q-learning, with a target network and a memory of earlier steps
(Mnih et al. 2015, https://doi.org/10.1038/nature14236); a policy and a value by synchronous advantage actor-critic,
A2C, from the newest steps alone (Mnih et al. 2016, https://arxiv.org/abs/1602.01783).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeGuard, get_args

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from epochal.catalog.architectures.actor_critic import Judged
from epochal.catalog.data import Batch, DataInfo
from epochal.catalog.entry import Params, TaskEntry
from epochal.catalog.environment import Memory, seen
from epochal.catalog.task import EverySample, Loss, NamedMetrics, fitting, in_fp32
from epochal.errors import EpochalError

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

Name = Literal["return", "length"]
Share = Annotated[float, Field(ge=0, le=1)]


class QLearning(Params):
    explore: Annotated[list[Share], Field(min_length=2, max_length=2)] = [1.0, 0.05]
    """The share of actions that are drawn at random, at first and at last; the others are those taken for best."""
    explore_steps: Annotated[int, Field(ge=1)] = 1000
    """Optimizer steps from the first to the last of these shares."""
    target_every: Annotated[int, Field(ge=1)] = 100
    """Optimizer steps after which the target network follows the online one."""
    memory: Annotated[int, Field(ge=1)] = 10_000
    """The newest steps, of all lanes together, that are learned from."""
    random_steps: Annotated[int, Field(ge=1)] = 1000
    """Steps that are taken at random before the first is learned from, of all lanes together."""
    reuse: Annotated[int, Field(ge=1)] = 8
    """How often a step is learned from, on the average: a batch of 64 then takes 8 new ones."""


class AdvantageActorCritic(Params):
    entropy: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the policy's entropy, which keeps it from settling early."""
    value: Annotated[float, Field(ge=0)] = 0.5
    """Weight of the squared error of the value."""


class ReinforcementParams(Params):
    discount: Share = 0.99
    """What a reward is worth that comes a step later."""
    q_learning: QLearning | None = None
    """Of a model that gives values of actions: `dqn`. null: the defaults."""
    actor_critic: AdvantageActorCritic | None = None
    """Of a model that gives a policy and a value: `actor-critic`. null: the defaults."""
    metrics: Annotated[list[Name], Field(min_length=1)] = ["return", "length"]
    """Means over the episodes that are played at a validation: the sum of rewards, not discounted, and the steps."""


class ActionValues(Protocol):
    """A model whose outputs are what each action is worth."""

    def __call__(self, x: Tensor) -> Tensor:
        """x: (batch, ...) observations; returns (batch, actions)."""

    def target_values(self, x: Tensor) -> Tensor:
        """The same by a network that follows now and then."""

    def follow(self) -> None:
        """Let it."""


class ReinforcementLearning(NamedMetrics):
    """In training the loss of steps that were taken; in evaluation episodes are played with the best actions, and the
    loss is their negative return."""

    known_metrics = get_args(Name)

    def __init__(self, params: ReinforcementParams, info: DataInfo) -> None:
        self.discount = params.discount
        self.metric_names = tuple(params.metrics)
        self._params, self._info = params, info
        self._q = params.q_learning or QLearning()
        self._a2c = params.actor_critic or AdvantageActorCritic()

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        if not model.training:
            played = self._played(model, batch)
            return Loss(-played[:, 0].sum(), None, played)
        return self._learned(model, batch) if _has_values(model) else self._judged(model, batch)

    def _learned(self, model: ActionValues, batch: Batch) -> Loss:
        """Huber's loss of the error, whose gradient is bounded, as the paper's."""
        if self._params.actor_critic is not None:
            raise EpochalError("task.params.actor_critic is set, and the model gives values of actions", "remove it")
        values = self._values(model(batch["input"]), batch)
        with torch.no_grad():
            following = model.target_values(batch["next"]).amax(dim=1)
        worth = values.gather(1, batch["target"][:, None]).squeeze(1)
        aim = batch["reward"] + batch["discount"] * following
        return Loss(F.smooth_l1_loss(worth, aim, reduction="sum"), None, values, {"value": worth.detach().sum()})

    def _judged(self, model: nn.Module, batch: Batch) -> Loss:
        judged = self._judgement(model, batch["input"])
        with torch.no_grad():
            following = self._judgement(model, batch["next"]).value
        likely = self._values(judged.policy, batch).log_softmax(dim=1)
        better = batch["reward"] + batch["discount"] * following - judged.value
        chosen = likely.gather(1, batch["target"][:, None]).squeeze(1)
        policy, value = -(chosen * better.detach()).sum(), better.square().sum()
        entropy = -(likely.exp() * likely).sum()
        logs = {"policy_loss": policy, "value_loss": value, "entropy": entropy}
        return Loss(policy + self._a2c.value * value - self._a2c.entropy * entropy, None, judged, logs)

    def _judgement(self, model: nn.Module, observations: Tensor) -> Judged:
        said = model(observations)
        if not isinstance(said, Judged):
            told = "reinforcement-learning needs a model with target_values, or one that gives Judged"
            raise EpochalError(f"{told}, not {type(model).__name__}", "use dqn or actor-critic")
        if self._params.q_learning is not None:
            raise EpochalError("task.params.q_learning is set, and the model gives a policy", "remove it")
        return said

    def _values(self, outputs: Tensor, batch: Batch) -> Tensor:
        actions = self._info.target.width
        return in_fp32(fitting(outputs, (len(batch["target"]), actions), "reinforcement-learning"))

    def memory(self, model: nn.Module) -> Memory | None:
        if not _has_values(model):
            return None
        return Memory(self._q.memory, self._q.random_steps, self._q.reuse)

    def act(self, model: nn.Module, observations: Tensor, drawn: Tensor, step: int) -> Tensor:
        if _has_values(model):
            first, last = self._q.explore
            share = first + (last - first) * min(1.0, step / self._q.explore_steps)
            at_random = (drawn[:, 1] * self._info.target.width).long()
            return torch.where(drawn[:, 0] < share, at_random, self._best(model, observations))
        shares = self._judgement(model, observations).policy.softmax(dim=1).cumsum(dim=1)
        return (shares[:, :-1] < drawn[:, :1]).sum(dim=1)

    def _best(self, model: Any, observations: Tensor) -> Tensor:
        if _has_values(model):
            best: Tensor = model(observations).argmax(dim=1)
            return best
        return self._judgement(model, observations).policy.argmax(dim=1)

    def takes_stock(self, step: int) -> bool:
        return step % self._q.target_every == 0

    def take_stock(self, model: nn.Module, step: int, every_sample: EverySample) -> None:
        if _has_values(model):
            model.follow()

    @torch.no_grad()
    def _played(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return and length of the episodes of a batch, (batch, 2), which are played side by side."""
        assert self._info.environment is not None
        device = batch["input"].device
        envs = [self._info.environment.make() for _ in batch["episode"]]
        played = torch.zeros(len(envs), 2)
        going = {
            place: seen(env.reset(seed=seed)[0])
            for place, (env, seed) in enumerate(zip(envs, batch["episode"].tolist(), strict=True))
        }
        while going:
            actions = self._best(model, torch.stack([*going.values()]).to(device)).tolist()
            for place, action in zip(list(going), actions, strict=True):
                after, reward, terminal, cut, _ = envs[place].step(action)
                played[place] += torch.tensor([float(reward), 1.0])
                going[place] = seen(after)
                if terminal or cut:
                    going.pop(place)
                    envs[place].close()
        return played.to(device)

    def metrics(self) -> MetricCollection:
        from torchmetrics import MeanMetric

        return self.named(dict.fromkeys(self.known_metrics, MeanMetric))

    def update(self, metrics: MetricCollection, outputs: Any, batch: Batch) -> None:
        for name, metric in metrics.items(keep_base=True, copy_state=False):
            metric.update(outputs[:, self.known_metrics.index(str(name))])


def _has_values(model: object) -> TypeGuard[ActionValues]:
    return hasattr(model, "target_values")  # an `isinstance` of a protocol takes as long as to act


def build(params: ReinforcementParams, info: DataInfo) -> ReinforcementLearning:
    if info.environment is None:
        raise EpochalError("reinforcement-learning needs an environment to act in", "use the dataset gymnasium")
    return ReinforcementLearning(params, info)


ENTRY = TaskEntry(
    summary="What to do in an environment, from rewards: Q-learning or actor-critic; metrics return and length",
    source="Sutton and Barto 2018, Reinforcement learning: an introduction, http://incompleteideas.net/book",
    params=ReinforcementParams,
    build=build,
)
