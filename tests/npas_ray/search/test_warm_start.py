"""Every policy can begin with what other searches found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from npas_ray.networks.backbone import DIGITS
from npas_ray.search.axes import latency_on
from npas_ray.search.registry import POLICIES, make_policy
from npas_ray.search.replayable import ReplayablePolicy
from npas_ray.search.reward import Mode, Objective
from npas_ray.space.search_space import SearchSpace
from npas_ray.testing.policy_conformance import MODEL, OBJECTIVE, QUICK, search
from npas_ray.testing.warm_start_checks import (
    WARM_START_CHECKS,
    MakeReplayable,
    check_prior_of_any_kind,
    check_warm_restored_equals_live,
)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("check", WARM_START_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_conformance(check: Callable[[MakeReplayable], None], name: str) -> None:
    def make(space: SearchSpace, objective: Objective, seed: int) -> ReplayablePolicy:
        return make_policy(name, space, objective, seed=seed, settings=QUICK.get(name, {}))

    check(make)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("check", [check_warm_restored_equals_live, check_prior_of_any_kind])
def test_conformance_in_mode_front(check: Callable[[MakeReplayable], None], name: str) -> None:
    def make(space: SearchSpace, objective: Objective, seed: int) -> ReplayablePolicy:
        front = dataclasses.replace(objective, mode=Mode.FRONT, axes=(latency_on(MODEL),))
        return make_policy(name, space, front, seed=seed, settings=QUICK.get(name, {}))

    check(make)


@pytest.mark.parametrize("name", ["npas", "paper", "local"])
def test_a_prior_makes_up_for_a_random_start(name: str) -> None:
    """The first ten proposals after 40 results of another search are better than the first ten without them."""
    space = SearchSpace(DIGITS)
    earlier = search(make_policy("random", space, OBJECTIVE, seed=9), (40,))[1]
    means = {}
    for warm in (False, True):
        found = []
        for seed in range(3):
            policy = make_policy(name, space, OBJECTIVE, seed=seed)
            if warm:
                policy.warm_start(prior=earlier)
            rewards = [OBJECTIVE.reward(result) for result in search(policy, (5, 5))[1]]
            found += [reward for reward in rewards if reward is not None]
        means[warm] = np.mean(found)
    assert means[True] > means[False] + 0.005


def test_npas_learns_accuracies_of_another_device() -> None:
    """Without one latency of its own device, and from the best of them only the three that it starts with."""
    space = SearchSpace(DIGITS)
    earlier = search(make_policy("random", space, OBJECTIVE, seed=9), (60,))[1]
    prior = [dataclasses.replace(result, latency_ms={"another": 1.0}) for result in earlier if result.accuracy]
    best = sorted(prior, key=lambda result: -(result.accuracy or 0))[:3]
    totals = {}
    for warm in (False, True):
        total = 0.0
        for seed in range(3):
            policy = make_policy("npas", space, OBJECTIVE, seed=seed)
            if warm:
                policy.warm_start(prior=prior, start_with=[result.architecture for result in best])
            total += max(result.accuracy or 0.0 for result in search(policy, (5,) * 4)[1])
        totals[warm] = total
    assert totals[True] > totals[False]
