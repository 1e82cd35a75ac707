"""Every policy in mode front: it passes the conformance suite, and it finds a front."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from npas_ray.networks.backbone import DIGITS
from npas_ray.search.axes import latency_on
from npas_ray.search.policy import Observation, Policy, Status
from npas_ray.search.registry import POLICIES, make_policy
from npas_ray.search.reward import Mode, Objective
from npas_ray.space.choices import Architecture
from npas_ray.space.search_space import SearchSpace
from npas_ray.testing.policy_conformance import CHECKS, MODEL, QUICK, MakePolicy, evaluate


def _costs(architecture: Architecture) -> Mapping[str, float]:
    return {"size": sum(1000 / choice.rate for choice in architecture.layers), "energy": 3.0}


def front_of(objective: Objective) -> Objective:
    """The same budgets, and a front over size and, where it is measured, latency."""
    axes = ("size", *(latency_on(model) for model in objective.budgets_ms))
    reference = {"size": 5000.0} | {latency_on(model): 5.0 for model in objective.budgets_ms}
    return dataclasses.replace(objective, mode=Mode.FRONT, axes=axes, reference=reference, costs=_costs)


def maker(name: str) -> MakePolicy:
    def make(space: SearchSpace, objective: Objective, seed: int) -> Policy:
        return make_policy(name, space, front_of(objective), seed=seed, settings=QUICK.get(name, {}))

    return make


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_conformance_in_mode_front(check: Callable[[MakePolicy], None], name: str) -> None:
    check(maker(name))


OBJECTIVE = Objective(mode=Mode.FRONT, axes=(latency_on(MODEL),), reference={latency_on(MODEL): 8.0}, chance=0.1)


def _trained(architecture: Architecture) -> Observation:
    """`evaluate` without its budget: accuracy of any candidate, against its latency."""
    known = evaluate(architecture)
    if known.status is not Status.OVER_BUDGET:
        return known
    return Observation(architecture, Status.DONE, 0.9 - 0.001 * (int(architecture.key, 16) % 97), known.latency_ms)


def test_npas_finds_a_wider_front_than_random_search() -> None:
    volumes = {}
    for name in ("random", "npas"):
        policy = make_policy(name, SearchSpace(DIGITS), OBJECTIVE, seed=0)
        observed: list[Observation] = []
        for _ in range(8):
            results = [_trained(architecture) for architecture in policy.propose(5)]
            policy.observe(results)
            observed += results
        volumes[name] = OBJECTIVE.hypervolume(observed)
    assert volumes["npas"] > volumes["random"] + 0.02


def test_a_target_is_drawn_between_the_cheapest_and_the_reference() -> None:
    observed = [_trained(SearchSpace(DIGITS).sample(np.random.default_rng(seed))) for seed in range(20)]
    cheapest = min(o.latency_ms[MODEL] for o in observed if o.latency_ms)
    drawn = [OBJECTIVE.towards(np.random.default_rng(seed), observed).budgets_ms[MODEL] for seed in range(200)]
    assert cheapest <= min(drawn) < cheapest + 0.5
    assert 7.5 < max(drawn) <= 8.0
    assert all(OBJECTIVE.towards(np.random.default_rng(0), observed).mode is Mode.BEST for _ in range(2))
