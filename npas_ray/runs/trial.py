"""One Tune trial: a light orchestrator that holds neither a GPU nor a phone."""

from __future__ import annotations

import math
from typing import Any, cast

import ray
from ray import tune
from ray.actor import ActorHandle

from npas_ray.journal import Candidate
from npas_ray.runs.conductor import Conductor
from npas_ray.runs.laboratory import Laboratory

# of one CPU: a trial only waits for others
TRIAL_CPUS = 0.01


def evaluate_trial(config: dict[str, Any], *, laboratory: Laboratory, conductor: ActorHandle[Conductor]) -> None:
    """The function that Tune runs: evaluates the candidate `config["key"]` and reports its reward.

    Reports: reward (NaN for a failed candidate), accuracy (0..1), latency_ms by device model, status, reason.
    """
    candidate = cast(Candidate, ray.get(cast(Any, conductor).recall.remote(config["key"])))
    if candidate.status is None:
        laboratory.evaluator(conductor).evaluate(candidate)
        candidate = cast(Candidate, ray.get(cast(Any, conductor).recall.remote(config["key"])))
    observation = candidate.observation()
    reward = laboratory.objective.reward(observation)
    tune.report(
        {
            "reward": math.nan if reward is None else reward,
            "accuracy": math.nan if observation.accuracy is None else observation.accuracy,
            "latency_ms": dict(observation.latency_ms),
            "ordinal": candidate.ordinal,
            "key": candidate.key,
            "status": str(candidate.status),
            "reason": candidate.reason or "",
        }
    )
