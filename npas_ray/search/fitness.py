"""One number for policies that compare results and do not model them."""

from __future__ import annotations

from npas_ray.search.policy import Observation, Status
from npas_ray.search.reward import Objective


def fitness(objective: Objective, observation: Observation) -> float | None:
    """The reward, and of a candidate that the ladder stopped what its last rung would earn. None for a failed one.

    Raises InvalidObservation as `Objective.check` does.
    """
    reward = objective.reward(observation)
    if reward is None or observation.status is not Status.STOPPED or observation.accuracy is None:
        return reward
    return observation.accuracy - objective.alpha * objective.excess(observation.latency_ms)
