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
from npas_ray.search.policy import Observation

# of one CPU: a trial only waits for others
TRIAL_CPUS = 0.01


def evaluate_trial(config: dict[str, Any], *, laboratory: Laboratory, conductor: ActorHandle[Conductor]) -> None:
    """The function that Tune runs: evaluates the candidate `config["key"]` and reports its reward.

    Reports: reward (NaN for a failed candidate), accuracy (0..1) and epochs of the training that it comes from,
    latency_ms by device model, status, reason; the same, under way, after each rung of the ladder that another follows.
    """
    candidate = cast(Candidate, ray.get(cast(Any, conductor).recall.remote(config["key"])))

    def report(observation: Observation, epochs: int | None, status: str, reason: str = "") -> None:
        reward = laboratory.objective.reward(observation)
        tune.report(
            {
                "reward": math.nan if reward is None else reward,
                "accuracy": math.nan if observation.accuracy is None else observation.accuracy,
                "epochs": 0 if epochs is None else epochs,
                "latency_ms": dict(observation.latency_ms),
                "ordinal": candidate.ordinal,
                "key": candidate.key,
                "status": status,
                "reason": reason,
            }
        )

    def on_rung(observation: Observation) -> None:
        report(observation, max(observation.rungs), "under-way")

    if candidate.status is None:
        laboratory.evaluator(conductor).evaluate(candidate, on_rung=on_rung)
        candidate = cast(Candidate, ray.get(cast(Any, conductor).recall.remote(config["key"])))
    report(candidate.observation(), candidate.epochs, str(candidate.status), candidate.reason or "")
