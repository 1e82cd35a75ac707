"""Policies by name, for configurations."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from npas_ray.errors import ConfigError
from npas_ray.search.evolution_policy import EvolutionPolicy
from npas_ray.search.local_policy import LocalPolicy
from npas_ray.search.npas_policy import NpasPolicy
from npas_ray.search.optuna_policies import GPPolicy, NSGA2Policy, TPEPolicy
from npas_ray.search.paper_policy import PaperPolicy
from npas_ray.search.q_learning import QLearningSettings
from npas_ray.search.random_policy import RandomPolicy
from npas_ray.search.replayable import ReplayablePolicy
from npas_ray.search.reward import Objective
from npas_ray.search.tune_policy import TunePolicy
from npas_ray.space.search_space import SearchSpace

POLICIES: dict[str, type[ReplayablePolicy]] = {
    policy.name: policy
    for policy in (
        NpasPolicy,
        PaperPolicy,
        RandomPolicy,
        LocalPolicy,
        EvolutionPolicy,
        TPEPolicy,
        NSGA2Policy,
        GPPolicy,
    )
}

#: policies of others, which cannot keep every promise of ours
GUESTS: dict[str, type[ReplayablePolicy]] = {TunePolicy.name: TunePolicy}

#: what every policy takes; the rest of its constructor's keywords are its settings
_COMMON = {"self", "space", "objective", "seed"}


def settings_of(name: str) -> dict[str, Any]:
    """The settings of a policy with their defaults. Raises ConfigError for an unknown name."""
    parameters = inspect.signature(policy_class(name)).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.name not in _COMMON}


def make_policy(
    name: str, space: SearchSpace, objective: Objective, *, seed: int, settings: Mapping[str, Any] | None = None
) -> ReplayablePolicy:
    """A policy by its name, with settings by their names. Raises ConfigError for unknown names and impossible values.

    Settings of the paper's agent are a mapping: {"q_learning": {"learning_rate": 0.05}}.
    """
    policy, given = policy_class(name), dict(settings or {})
    _refuse_unknown(given, settings_of(name), f"searcher {name!r}")
    agent = given.get("q_learning")
    if agent is not None and not isinstance(agent, Mapping | QLearningSettings):
        raise ConfigError(f"q_learning of searcher {name!r} is a mapping of settings, got {agent!r}")
    if isinstance(agent, Mapping):
        known = {field.name: field.default for field in dataclasses.fields(QLearningSettings)}
        _refuse_unknown(agent, known, f"q_learning of searcher {name!r}")
    try:
        if isinstance(agent, Mapping):
            given["q_learning"] = QLearningSettings(**agent)
        return policy(space, objective, seed=seed, **given)
    except ValueError as error:
        raise ConfigError(f"settings of searcher {name!r}: {error}") from error


def policy_class(name: str) -> type[ReplayablePolicy]:
    """The class of a policy. Raises ConfigError for an unknown name."""
    every = POLICIES | GUESTS
    if name not in every:
        raise ConfigError(f"unknown searcher {name!r}{_nearest(name, list(every))}; known: {', '.join(every)}")
    return every[name]


def _refuse_unknown(given: Mapping[str, Any], known: Mapping[str, Any], of: str) -> None:
    for setting in given:
        if setting not in known:
            names = ", ".join(known) or "none"
            raise ConfigError(f"{of} has no setting {setting!r}{_nearest(str(setting), list(known))}; it has: {names}")


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    return f", did you mean {near[0]!r}?" if near else ""
