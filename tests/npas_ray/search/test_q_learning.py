from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from npas_ray.search.q_learning import QLearning, QLearningSettings


def test_one_step_of_learning_is_the_bellman_update() -> None:
    """Two layers, one visit each: Q += rate * (r / T + max Q(next) - Q), last layer first."""
    agent = QLearning([2, 3], seed=0, settings=QLearningSettings(replay=1, learning_rate=0.1))
    agent.learn(np.array([1, 2]), 0.8)
    last = 0.5 + 0.1 * (0.4 - 0.5)
    assert agent.q[1][1, 2] == pytest.approx(last)
    assert agent.q[0][0, 1] == pytest.approx(0.5 + 0.1 * (0.4 + 0.5 - 0.5))  # max of the next state is still 0.5
    assert agent.q[1][0].tolist() == [0.5, 0.5, 0.5]
    assert agent.q[0][0, 0] == 0.5


def test_replay_of_one_trajectory_equals_its_updates_one_by_one() -> None:
    settings = QLearningSettings(replay=128, learning_rate=0.01, initial_q=0.0)
    agent = QLearning([3], seed=0, settings=settings)
    agent.learn(np.array([1]), 1.0)
    q = 0.0
    for _ in range(128):
        q += 0.01 * (1.0 - q)
    assert agent.q[0][0, 1] == pytest.approx(q)


def test_state_is_the_previous_choice() -> None:
    """Reward only where both layers agree: the second layer's best choice depends on the first."""
    agent = QLearning([2, 2], seed=0, settings=QLearningSettings(learning_rate=0.2))
    rng = np.random.default_rng(0)
    for _ in range(60):
        row = rng.integers(2, size=2)
        agent.learn(row, float(row[0] == row[1]))
    assert agent.q[1].argmax(axis=1).tolist() == [0, 1]


def test_values_converge_to_the_reward() -> None:
    agent = QLearning([2, 2, 2], seed=0, settings=QLearningSettings(learning_rate=0.1))
    for _ in range(200):
        agent.learn(np.array([0, 1, 0]), 0.9)
        agent.learn(np.array([1, 1, 1]), 0.1)
    assert agent.q[0][0, 0] > agent.q[0][0, 1]
    assert agent.q[2][1, 0] == pytest.approx(0.3, abs=0.01)  # every step earns a third of the reward


def test_epsilon_falls_in_steps_of_a_tenth() -> None:
    agent = QLearning([2], seed=0, settings=QLearningSettings(epsilon_results=20))
    seen = []
    for _ in range(25):
        seen.append(agent.epsilon)
        agent.learn(np.array([0]), 0.5)
    assert seen[0] == seen[1] == 1.0
    assert seen[2] == pytest.approx(0.91)
    assert seen[20] == pytest.approx(0.1)
    assert seen[24] == pytest.approx(0.1)


def test_greedy_rollouts_follow_what_was_learned() -> None:
    settings = QLearningSettings(epsilon_start=0.0, epsilon_end=0.0, learning_rate=0.5)
    agent = QLearning([4, 4, 4], seed=0, settings=settings)
    for _ in range(5):
        agent.learn(np.array([3, 1, 2]), 5.0)
    assert np.unique(agent.rollouts(20, np.random.default_rng(0)), axis=0).tolist() == [[3, 1, 2]]


def test_rollouts_without_knowledge_are_uniform() -> None:
    rows = QLearning([3, 5], seed=0).rollouts(3000, np.random.default_rng(0))
    assert np.bincount(rows[:, 0]).min() > 900
    assert np.bincount(rows[:, 1]).min() > 500


def test_learning_is_a_function_of_seed_and_results() -> None:
    rng = np.random.default_rng(0)
    results = [(rng.integers(3, size=4), float(rng.random())) for _ in range(10)]
    agents = [QLearning([3] * 4, seed=seed) for seed in (1, 1, 2)]
    for agent in agents:
        for row, reward in results:
            agent.learn(row, reward)
    assert all((a == b).all() for a, b in zip(agents[0].q, agents[1].q, strict=True))
    assert any((a != b).any() for a, b in zip(agents[0].q, agents[2].q, strict=True))


@pytest.mark.parametrize(
    "settings",
    [{"learning_rate": 0.0}, {"learning_rate": 1.5}, {"replay": 0}, {"epsilon_start": 0.0}, {"epsilon_results": 0}],
)
def test_refuses_impossible_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        QLearningSettings(**settings)
