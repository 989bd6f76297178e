"""Environments: what is learned from steps, which of gymnasium's are taken, and how models act in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import played_pieces
from epochal.catalog.architectures import ARCHITECTURES
from epochal.catalog.architectures.dqn import Dqn
from epochal.catalog.build import load_data
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.datasets import gymnasium_environment
from epochal.catalog.environment import Step, batch_of, returns, seen
from epochal.catalog.tasks import TASKS
from epochal.errors import EpochalError, SpecError
from epochal.spec.section import Component

SEEN = [torch.tensor([float(number)]) for number in range(6)]


def step(number: int, reward: float, terminal: bool = False, last: bool = False) -> Step:
    return Step(SEEN[number], 1, reward, SEEN[number + 1], terminal, last or terminal, 7)


def test_rewards_are_added_up_to_the_end_of_the_steps_or_of_the_episode() -> None:
    steps = [step(0, 1.0), step(1, 2.0, terminal=True), step(2, 4.0), step(3, 8.0, last=True), step(4, 16.0)]
    found = batch_of(returns(steps, 0.5))
    assert found["reward"].tolist() == [1 + 0.5 * 2, 2, 4 + 0.5 * 8, 8, 16]
    assert found["discount"].tolist() == [0, 0, 0.25, 0.5, 0.5]  # one that was cut short goes on in what was seen last
    assert found["next"].flatten().tolist() == [2, 2, 4, 4, 5]
    assert found["input"].flatten().tolist() == [0, 1, 2, 3, 4]
    assert found["target"].dtype == torch.int64


def test_bytes_are_seen_from_0_to_1() -> None:
    assert seen(torch.tensor([0, 51, 255], dtype=torch.uint8).numpy()).tolist() == pytest.approx([0, 0.2, 1])
    assert seen(3).dtype == torch.float32


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"id": "CartPole-v9"}, "gymnasium cannot make CartPole-v9"),
        ({"id": "Pendulum-v1"}, r"the actions of Pendulum-v1 are Box.*Discrete"),
        ({"id": "FrozenLake-v1"}, "the observations of FrozenLake-v1 are Discrete, and models take Box"),
        ({"id": "CartPole-v1", "params": {"gravity": 3}}, "gymnasium cannot make CartPole-v1: TypeError"),
    ],
    ids=["name", "actions", "seen", "params"],
)
def test_environments_that_no_model_can_act_in_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_data(Component(name="gymnasium", params=params), Path())


def test_what_is_not_installed_is_told_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gymnasium_environment, "find_spec", lambda name: None)
    with pytest.raises(SpecError, match=r"not installed here[\s\S]*pip install 'epochal\[gymnasium\]'"):
        load_data(Component(name="gymnasium", params={"id": "CartPole-v1"}), Path())


def test_episodes_to_test_on_are_others_than_those_to_validate_on() -> None:
    params = {"id": "CartPole-v1", "validation": 3, "test": 2}
    data = load_data(Component(name="gymnasium", params=params), Path())
    assert data.test is not None
    assert data.validation is not None
    seeds = [int(split.fetch([index])["episode"]) for _, split in data.splits() for index in (0, 1)]
    assert len(set(seeds[2:])) == 4
    assert torch.equal(data.test.fetch([1])["input"][0], load_data(
        Component(name="gymnasium", params={**params, "validation": 0}), Path()).test.fetch([1])["input"][0])  # type: ignore[union-attr]  # fmt: skip


def task(**params: Any) -> Any:
    entry = TASKS.get("reinforcement-learning")
    return entry.build(entry.params.model_validate(params), played_pieces.info())


def test_actions_are_drawn_less_and_less_by_q_learning() -> None:
    model, learning = played_pieces.q_network(), task(q_learning={"explore": [1.0, 0.0], "explore_steps": 10})
    observations, drawn = torch.eye(6)[:4], torch.tensor([[0.4, 0.9]] * 4)
    best = model(observations).argmax(1)
    assert learning.act(model, observations, drawn, 0).tolist() == [1, 1, 1, 1]
    assert learning.act(model, observations, drawn, 10).tolist() == best.tolist()


def test_actions_follow_the_probabilities_of_a_policy() -> None:
    model, learning = played_pieces.actor_critic(), task()
    share = float(model(torch.eye(6)[:1]).policy.softmax(1)[0, 1].detach())
    drawn = torch.rand(4000, 2, generator=torch.Generator().manual_seed(0))
    actions = learning.act(model, torch.eye(6)[:1].expand(4000, 6), drawn, 0)
    assert float(actions.double().mean()) == pytest.approx(share, abs=0.03)


def test_the_target_network_follows_when_it_is_told() -> None:
    model = played_pieces.q_network()
    assert isinstance(model, Dqn)
    observations = torch.eye(6)
    before = model(observations)
    with torch.no_grad():
        model.online[1].weight.add_(1.0)
    assert torch.equal(model.target_values(observations), before)
    model.follow()
    assert torch.equal(model.target_values(observations), model(observations))


def test_q_learning_aims_at_what_the_target_network_says() -> None:
    model, learning = played_pieces.q_network(), task(discount=0.9)
    batch = batch_of(returns([Step(torch.eye(6)[0], 1, 2.0, torch.eye(6)[1], False, False, 0)], 0.9))
    with torch.no_grad():
        model.online[1].weight.mul_(3.0)
        aim = 2.0 + 0.9 * model.target_values(torch.eye(6)[1:2]).max()
        error = (aim - model(torch.eye(6)[:1])[0, 1]).abs()
        expected = 0.5 * error**2 if error < 1 else error - 0.5
    assert learning.loss(model, batch).total.item() == pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("model", "params", "message"),
    [
        (played_pieces.actor_critic, {"q_learning": {}}, r"task\.params\.q_learning is set"),
        (played_pieces.q_network, {"actor_critic": {}}, r"task\.params\.actor_critic is set"),
        (lambda: torch.nn.Linear(6, 2), {}, "one that gives Judged, not Linear"),
    ],
    ids=["policy", "values", "other"],
)
def test_what_is_for_another_model_is_refused(model: Any, params: Any, message: str) -> None:
    batch = batch_of(returns([Step(torch.eye(6)[0], 1, 2.0, torch.eye(6)[1], False, False, 0)], 0.9))
    with pytest.raises(EpochalError, match=message):
        task(**params).loss(model(), batch)


@pytest.mark.parametrize(("name", "least"), [("dqn", 36), ("actor-critic", 20)])
def test_images_have_to_be_large_enough(name: str, least: int) -> None:
    entry = ARCHITECTURES.get(name)
    with pytest.raises(EpochalError, match=f"{least} pixels a side"):
        entry.build(entry.params(), DataInfo(Field((3, least - 1, 40)), Field((), torch.int64, 4)))
    entry.build(entry.params(), DataInfo(Field((3, least, least)), Field((), torch.int64, 4)))
