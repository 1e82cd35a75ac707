"""Every policy passes the conformance suite."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from npas_ray.networks.backbone import DIGITS
from npas_ray.search.policy import Observation, Policy, Status
from npas_ray.search.registry import POLICIES, make_policy
from npas_ray.search.reward import Objective
from npas_ray.space.choices import Architecture
from npas_ray.space.search_space import SearchSpace
from npas_ray.testing.policy_conformance import (
    CHECKS,
    FIFTY_LAYERS,
    MODEL,
    OBJECTIVE,
    QUICK,
    SPACES,
    MakePolicy,
    evaluate,
    search,
)


def _predict(architectures: Sequence[Architecture]) -> dict[str, Any]:
    return {MODEL: np.array([1.0 + 2 * (len(str(a)) % 3) for a in architectures])}


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, QUICK.get(name, {})) for name in POLICIES},
    "paper small": ("paper", {"pool_size": 3, "initial_random": 0, "mutate_fraction": 0.0, "wl_depth": 0}),
    "npas small": ("npas", {"pool_size": 4, "rounds": 0, "initial_random": 2, "parents": 1, "max_results": 10}),
    "npas with predictor": ("npas", {"latency_predictor": _predict}),
}


def _maker(variant: str) -> MakePolicy:
    name, settings = VARIANTS[variant]

    def make(space: SearchSpace, objective: Objective, seed: int) -> Policy:
        if not objective.budgets_ms and "latency_predictor" in settings:
            return make_policy(name, space, objective, seed=seed)
        return make_policy(name, space, objective, seed=seed, settings=settings)

    return make


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_conformance(check: Callable[[MakePolicy], None], variant: str) -> None:
    check(_maker(variant))


def test_spaces_of_the_suite() -> None:
    assert [space.size for space in SPACES[:1]] == [1]
    assert max(space.size for space in SPACES) > 10**40
    assert {space.layers for space in SPACES} >= {1, 50}
    assert FIFTY_LAYERS.layers == 50


@pytest.mark.parametrize("name", ["paper", "npas"])
def test_proposals_depend_on_neither_threads_nor_hash_seed(name: str) -> None:
    code = (
        "from npas_ray.testing.policy_conformance import *; from npas_ray.search.registry import make_policy;"
        f"p = make_policy({name!r}, SearchSpace(DIGITS), OBJECTIVE, seed=0);"
        "print([a.key for a in search(p, (5,) * 8)[0]])"
    )
    outputs = set()
    for threads, hash_seed in (("1", "0"), ("4", "123")):
        environment = os.environ | {"OPENBLAS_NUM_THREADS": threads, "PYTHONHASHSEED": hash_seed}
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=120
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1


@pytest.mark.parametrize("name", ["paper", "npas"])
def test_learns(name: str) -> None:
    space = SearchSpace(DIGITS)
    totals = {}
    for searcher in ("random", name):
        best = []
        for seed in range(3):
            _, observed = search(make_policy(searcher, space, OBJECTIVE, seed=seed), (5,) * 10)
            best.append(max(o.accuracy for o in observed if o.accuracy is not None))
        totals[searcher] = sum(best)
    assert totals[name] > totals["random"]


@pytest.mark.parametrize("variant", ["npas", "npas with predictor"])
def test_npas_avoids_what_is_over_the_budget(variant: str) -> None:
    space = SearchSpace(DIGITS)
    tight = Objective({MODEL: 1.5}, chance=0.1)
    sampled = [evaluate(space.sample(np.random.default_rng(i))) for i in range(300)]
    share = np.mean([tight.feasible(result.latency_ms) for result in sampled if result.latency_ms])
    assert share < 0.2
    settings = {"latency_predictor": lambda some: {MODEL: np.array([_latency_ms(a) for a in some])}}
    policy = make_policy("npas", space, tight, seed=0, settings=settings if "predictor" in variant else {})
    kept = []
    for _ in range(8):
        results = [evaluate(architecture) for architecture in policy.propose(5)]
        policy.observe([_as_budgeted(result, tight) for result in results])
        kept.append([tight.feasible(result.latency_ms) for result in results if result.latency_ms])
    assert np.mean(np.concatenate(kept[4:])) > 3 * share
    if "predictor" in variant:
        assert np.mean(kept[0]) == 1


def _latency_ms(architecture: Architecture) -> float:
    """What `evaluate` measures, also of those that fail there."""
    cost = {"3x3": 1.0, "1x1+3x3dw+1x1": 0.8, "3x3dw+1x1": 0.5, "1x1": 0.3, "skip": 0.0}
    return 0.5 + sum(cost[choice.operator] / choice.rate for choice in architecture.layers)


def _as_budgeted(result: Observation, objective: Objective) -> Observation:
    if result.status is not Status.FAILED and not objective.feasible(result.latency_ms):
        return Observation(result.architecture, Status.OVER_BUDGET, None, result.latency_ms)
    return result
