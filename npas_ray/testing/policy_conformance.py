"""What every policy must do, as functions that raise AssertionError; for this project's tests and for yours.

    from npas_ray.testing.policy_conformance import CHECKS

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_policy(check):
        check(lambda space, objective, seed: MyPolicy(space, objective, seed=seed))

A check takes a function that makes a new policy, and searches spaces from one to 10^40 architectures with a made-up
task. Each takes seconds at most with a policy that proposes in milliseconds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from npas_ray.errors import InvalidObservation
from npas_ray.networks.backbone import DIGITS, make_backbone
from npas_ray.search.policy import Observation, Policy, Status
from npas_ray.search.reward import Objective
from npas_ray.space.choices import Architecture, LayerChoice, Operator, Scheme
from npas_ray.space.search_space import SearchSpace

MakePolicy = Callable[[SearchSpace, Objective, int], Policy]

#: settings by policy with which one passes in seconds that takes them for a suggestion on fifty layers by its own
QUICK: dict[str, dict[str, Any]] = {
    "optuna-gp": {"n_startup_trials": 14, "preliminary_samples": 16, "local_searches": 2, "max_results": 16},
    "optuna-tpe": {"multivariate": True},
}

MODEL = "phone"
OBJECTIVE = Objective({MODEL: 4.0}, chance=0.1)
_COST_MS = {
    Operator.CONV3X3: 1.0,
    Operator.CONV1X1_DW3X3_CONV1X1: 0.8,
    Operator.DW3X3_CONV1X1: 0.5,
    Operator.CONV1X1: 0.3,
}


def _space(blocks: int, operators: Sequence[Operator], rates: Sequence[float]) -> SearchSpace:
    backbone = make_backbone(
        f"conformance{blocks}", input_shape=(1, 8, 8), stem=(16, 1), blocks=((16, 1),) * blocks, classes=10
    )
    return SearchSpace(backbone, operators=operators, schemes=(Scheme.FILTER, Scheme.BLOCK_PUNCHED), rates=rates)


ONE_POINT = _space(1, [Operator.CONV3X3], [1])
ONE_LAYER = _space(1, [Operator.CONV3X3, Operator.CONV1X1, Operator.SKIP], [1, 2, 3, 5])
SMALL = _space(3, [Operator.CONV3X3, Operator.SKIP], [1])
FIFTY_LAYERS = _space(50, [Operator.CONV3X3, Operator.SKIP], [1, 2, 3, 5])
SPACES = (ONE_POINT, ONE_LAYER, SMALL, SearchSpace(DIGITS), FIFTY_LAYERS)


def evaluate(architecture: Architecture) -> Observation:
    """A made-up task: every seventh architecture fails, one that takes more than 4 ms is over the budget."""
    latency_ms = 0.5 + sum(_COST_MS.get(c.operator, 0.0) / c.rate for c in architecture.layers) * 7 / len(
        architecture.layers
    )
    if int(architecture.key, 16) % 7 == 0:
        return Observation(architecture, Status.FAILED)
    if latency_ms > OBJECTIVE.budgets_ms[MODEL]:
        return Observation(architecture, Status.OVER_BUDGET, None, {MODEL: latency_ms})
    loss = sum(0.3 * (c.operator is Operator.SKIP) + 0.1 * math.log(c.rate) for c in architecture.layers)
    accuracy = 0.9 - 0.5 * loss / len(architecture.layers) - (int(architecture.key, 16) % 97) / 1e4
    return Observation(architecture, Status.DONE, accuracy, {MODEL: latency_ms})


def search(policy: Policy, batches: Sequence[int]) -> tuple[list[Architecture], list[Observation]]:
    """Proposals and observations of a search that evaluates every batch before the next."""
    proposed: list[Architecture] = []
    observed: list[Observation] = []
    for count in batches:
        batch = policy.propose(count)
        results = [evaluate(architecture) for architecture in batch]
        policy.observe(results)
        proposed += batch
        observed += results
    return proposed, observed


def _refused(call: Callable[[], object], expected: type[Exception]) -> str:
    """The message with which a call refuses."""
    try:
        call()
    except expected as error:
        return str(error)
    raise AssertionError(f"nothing was refused, expected {expected.__name__}")


def check_proposals_are_new_and_canonical(make: MakePolicy) -> None:
    """In every space, with any batch size: canonical, legal, never twice, as many as asked for if there are so many."""
    for space in SPACES:
        policy = make(space, OBJECTIVE, 0)
        batches = (1, 3, 5, 8, 1, 20)
        proposed: list[Architecture] = []
        for count in batches:
            batch = policy.propose(count)
            assert len(batch) == min(count, space.size - len(proposed)), f"{space!r}: asked for {count}"
            proposed += batch
            policy.observe([evaluate(architecture) for architecture in batch])
        assert len(set(proposed)) == len(proposed), f"{space!r}: proposed twice"
        for architecture in proposed:
            assert space.is_legal(architecture) and space.canonical(architecture) == architecture


def check_exhaustion_ends(make: MakePolicy) -> None:
    """Small spaces are tried to the last architecture; then there is nothing to propose, again and again."""
    for space in (ONE_POINT, ONE_LAYER, SMALL):
        policy = make(space, OBJECTIVE, 1)
        proposed: list[Architecture] = []
        while batch := policy.propose(4):
            proposed += batch
            policy.observe([evaluate(architecture) for architecture in batch])
        assert len(set(proposed)) == len(proposed) == space.size
        assert policy.propose(1) == [] == policy.propose(1000)


def check_exhaustion_without_results(make: MakePolicy) -> None:
    """The same if no result ever comes."""
    policy = make(SMALL, OBJECTIVE, 1)
    assert len(set(policy.propose(3) + policy.propose(10_000))) == SMALL.size
    assert policy.propose(1) == []


def check_deterministic_by_seed(make: MakePolicy) -> None:
    """Same seed and results, same proposals; another seed, others."""
    space = SearchSpace(DIGITS)
    batches = (4, 4, 4, 4, 1, 5)
    first, _ = search(make(space, OBJECTIVE, 3), batches)
    again, _ = search(make(space, OBJECTIVE, 3), batches)
    other, _ = search(make(space, OBJECTIVE, 4), batches)
    assert first == again
    assert first != other


def check_restored_equals_live(make: MakePolicy) -> None:
    """Rebuilt from proposals and observations at any moment, also with candidates under way, it goes on as it would."""
    for space in (ONE_LAYER, SearchSpace(DIGITS), FIFTY_LAYERS):
        live = make(space, OBJECTIVE, 5)
        proposed: list[Architecture] = []
        observed: list[Observation] = []
        waiting: list[Architecture] = []
        for step, count in enumerate((5, 2, 5, 1, 4, 3, 5)):
            rebuilt = make(space, OBJECTIVE, 5)
            rebuilt.restore(proposed, observed)
            batch = live.propose(count)
            assert rebuilt.propose(count) == batch, f"{space!r}: after {len(proposed)} proposals"
            proposed += batch
            waiting += batch
            done, waiting = waiting[step % 3 :][::-1], waiting[: step % 3]  # late and out of order
            results = [evaluate(architecture) for architecture in done]
            live.observe(results[:1])
            live.observe(results[1:])
            observed += results


def check_restore_only_when_new(make: MakePolicy) -> None:
    """A policy that is in use cannot become another."""
    policy = make(SMALL, OBJECTIVE, 0)
    policy.propose(1)
    _refused(lambda: policy.restore([], []), RuntimeError)


def check_unknown_and_repeated_results(make: MakePolicy) -> None:
    """Results of candidates that it did not propose count as known; results may come twice (re-evaluation)."""
    policy = make(SMALL, OBJECTIVE, 0)
    outside = list(SMALL)[:5]
    policy.observe([evaluate(architecture) for architecture in outside])
    policy.observe([evaluate(architecture) for architecture in outside])
    rest = policy.propose(100)
    assert set(rest) | set(outside) == set(SMALL)
    assert len(rest) == SMALL.size - 5


def check_all_kinds_of_results(make: MakePolicy) -> None:
    """A search goes on when everything fails, is over the budget, is equally good, or is at chance."""
    kinds: list[Callable[[Architecture], Observation]] = [
        lambda a: Observation(a, Status.FAILED),
        lambda a: Observation(a, Status.OVER_BUDGET, None, {MODEL: 8.0}),
        lambda a: Observation(a, Status.DONE, 0.5, {MODEL: 2.0}),
        lambda a: Observation(a, Status.DONE, 0.1, {MODEL: 8.0}),
        lambda a: Observation(a, Status.DONE, 0.5, {MODEL: 2.0, "another model": 1.0}),
    ]
    for space in (ONE_LAYER, SearchSpace(DIGITS)):
        for kind in kinds:
            policy = make(space, OBJECTIVE, 0)
            for count in (6, 6, 3):
                batch = policy.propose(count)
                assert batch or space is ONE_LAYER
                policy.observe([kind(architecture) for architecture in batch])


def check_without_budgets(make: MakePolicy) -> None:
    """An objective without budgets is accuracy alone; latencies are not needed."""
    policy = make(SearchSpace(DIGITS), Objective(), 0)
    for _ in range(4):
        batch = policy.propose(5)
        assert len(batch) == 5
        policy.observe([Observation(architecture, Status.DONE, 0.5) for architecture in batch])


def check_refuses_impossible_results(make: MakePolicy) -> None:
    """NaN, infinity, out of range, incomplete, of another space: InvalidObservation, and nothing is learned."""
    policy, same = make(ONE_LAYER, OBJECTIVE, 2), make(ONE_LAYER, OBJECTIVE, 2)
    batch = policy.propose(3)
    assert batch == same.propose(3)
    good = Observation(batch[0], Status.DONE, 0.5, {MODEL: 2.0})
    foreign = Architecture((LayerChoice(Operator.FC),))
    bad = [
        *(dataclasses.replace(good, accuracy=value) for value in (math.nan, math.inf, -math.inf, -0.1, 1.1, None)),
        *(dataclasses.replace(good, latency_ms={MODEL: value}) for value in (math.nan, math.inf, 0.0, -1.0)),
        dataclasses.replace(good, latency_ms={"another model": 1.0}),
        dataclasses.replace(good, latency_ms={"another model": math.nan, MODEL: 2.0}),
        Observation(batch[0], Status.OVER_BUDGET),
        Observation(foreign, Status.FAILED),
        Observation(Architecture(()), Status.FAILED),
    ]
    for observation in bad:
        message = _refused(partial(policy.observe, [good, observation]), InvalidObservation)
        assert observation.architecture.key in message, f"the error does not name the candidate: {message}"
    results = [evaluate(architecture) for architecture in batch]
    policy.observe(results)
    same.observe(results)
    assert policy.propose(4) == same.propose(4), "a refused observation left a trace"


def check_counts(make: MakePolicy) -> None:
    """Nothing asked, nothing proposed; a negative number is refused."""
    policy = make(SMALL, OBJECTIVE, 0)
    assert policy.propose(0) == []
    policy.observe([])
    _refused(lambda: policy.propose(-1), ValueError)


def check_caller_may_change_what_it_got(make: MakePolicy) -> None:
    """The list of proposals is the caller's."""
    policy, same = make(SMALL, OBJECTIVE, 0), make(SMALL, OBJECTIVE, 0)
    policy.propose(3).clear()
    same.propose(3)
    assert policy.propose(3) == same.propose(3)


def check_no_global_random_state(make: MakePolicy) -> None:
    """It neither uses nor changes numpy's global generator."""
    space = SearchSpace(DIGITS)
    np.random.seed(1)
    before = np.random.get_state(legacy=False)["state"]["key"].copy()
    first, _ = search(make(space, OBJECTIVE, 0), (6, 6, 3))
    assert (np.random.get_state(legacy=False)["state"]["key"] == before).all()
    np.random.seed(2)
    assert search(make(space, OBJECTIVE, 0), (6, 6, 3))[0] == first


CHECKS: tuple[Callable[[MakePolicy], None], ...] = (
    check_proposals_are_new_and_canonical,
    check_exhaustion_ends,
    check_exhaustion_without_results,
    check_deterministic_by_seed,
    check_restored_equals_live,
    check_restore_only_when_new,
    check_unknown_and_repeated_results,
    check_all_kinds_of_results,
    check_without_budgets,
    check_refuses_impossible_results,
    check_counts,
    check_caller_may_change_what_it_got,
    check_no_global_random_state,
)
