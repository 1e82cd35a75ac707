from __future__ import annotations

from typing import Any

import pytest

from npas_ray.errors import ConfigError
from npas_ray.networks.backbone import DIGITS
from npas_ray.search.names import POLICY_NAMES
from npas_ray.search.registry import GUESTS, POLICIES, make_policy, settings_of
from npas_ray.search.reward import Objective
from npas_ray.space.search_space import SearchSpace

SPACE = SearchSpace(DIGITS)


def test_names() -> None:
    assert (*POLICIES, *GUESTS) == POLICY_NAMES
    for name in POLICIES:
        policy = make_policy(name, SPACE, Objective(), seed=0)
        assert policy.name == name
        assert policy.batch_size >= 1


def test_settings_are_those_of_the_constructor() -> None:
    assert settings_of("random") == {}
    assert settings_of("paper")["pool_size"] == 200
    policy = make_policy(
        "paper", SPACE, Objective(), seed=0, settings={"batch_size": 3, "q_learning": {"learning_rate": 0.05}}
    )
    assert policy.batch_size == 3


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("papre", {}, r"unknown searcher 'papre', did you mean 'paper'\?; known: npas, paper, random, local, evo"),
        ("xyz", {}, "unknown searcher 'xyz'; known"),
        ("paper", {"pool": 3}, "'paper' has no setting 'pool', did you mean 'pool_size'"),
        ("random", {"pool_size": 3}, "'random' has no setting 'pool_size'; it has: none"),
        ("paper", {"pool_size": 0}, "'paper': pool_size is a whole number >= 1, got 0"),
        ("paper", {"pool_size": "many"}, "pool_size is a whole number >= 1, got 'many'"),
        ("paper", {"mutate_fraction": 2}, r"mutate_fraction is in \[0, 1\], got 2"),
        ("paper", {"mutate_fraction": "half"}, "mutate_fraction"),
        ("npas", {"q_learning": {"rate": 1}}, "q_learning of searcher 'npas' has no setting 'rate'"),
        ("npas", {"q_learning": {"replay": 0}}, "replay"),
        ("npas", {"q_learning": 3}, "q_learning of searcher 'npas' is a mapping of settings, got 3"),
        ("optuna", {}, "unknown searcher 'optuna', did you mean 'optuna-"),
        ("optuna-tpe", {"multivariate": 1}, "'optuna-tpe': multivariate is true or false, got 1"),
        ("optuna-tpe", {"n_startup_trials": 0}, "n_startup_trials is a whole number >= 1, got 0"),
        ("optuna-tpe", {"startup": 5}, "has no setting 'startup', did you mean 'n_startup_trials'"),
        ("optuna-gp", {"parameters": "layers"}, "parameters is one of choices, factors, got 'layers'"),
        ("optuna-nsga2", {"population_size": 1}, "population_size is a whole number >= 2, got 1"),
        ("evolution", {"near": 1.5}, r"'evolution': near is in \[0, 1\], got 1.5"),
        ("evolution", {"tournament_size": 0}, "tournament_size is a whole number >= 1, got 0"),
        ("npas", {"latency_predictor": "yes"}, "latency_predictor is a function of architectures, got 'yes'"),
    ],
)
def test_refusals_say_what_is_possible(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_policy(name, SPACE, Objective(), seed=0, settings=settings)


def test_refuses_a_negative_seed() -> None:
    with pytest.raises(ConfigError, match="seed"):
        make_policy("random", SPACE, Objective(), seed=-1)
