"""What a policy that can be warm-started must do besides; see policy_conformance, which says how checks are used."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from npas_ray.errors import InvalidObservation
from npas_ray.networks.backbone import DIGITS
from npas_ray.search.policy import Observation, Status
from npas_ray.search.replayable import ReplayablePolicy
from npas_ray.search.reward import Objective
from npas_ray.space.choices import Architecture, LayerChoice, Operator
from npas_ray.space.search_space import SearchSpace
from npas_ray.testing.policy_conformance import FIFTY_LAYERS, MODEL, OBJECTIVE, ONE_LAYER, SMALL, evaluate, search

MakeReplayable = Callable[[SearchSpace, Objective, int], ReplayablePolicy]


def prior_of(space: SearchSpace, count: int) -> list[Observation]:
    """Results of an earlier search: whole ones, and ones that lack latencies or accuracies, in turn."""
    rng = np.random.default_rng(7)
    results = [evaluate(architecture) for architecture in dict.fromkeys(space.sample(rng) for _ in range(count))]
    return [_part(result) if index % 3 == 2 else result for index, result in enumerate(results)]


def _part(result: Observation) -> Observation:
    if result.status is Status.DONE:
        return dataclasses.replace(result, latency_ms={"another model": 3.0})
    return dataclasses.replace(result, latency_ms={MODEL: 1.0}) if result.latency_ms else result


def check_begins_with_what_it_is_told(make: MakeReplayable) -> None:
    """In that order, whatever the size of the batches; what was observed by then is left out; nothing comes twice."""
    space = SearchSpace(DIGITS)
    rng = np.random.default_rng(3)
    favourites = [space.sample(rng) for _ in range(6)]
    for batches in ((1, 1, 1, 1, 1, 1, 3), (4, 5), (9,)):
        policy = make(space, OBJECTIVE, 0)
        policy.warm_start(prior=prior_of(space, 20), start_with=[*favourites, favourites[0]])
        proposed, _ = search(policy, batches)
        assert proposed[:6] == favourites, f"batches of {batches}"
        assert len(set(proposed)) == 9
    policy = make(space, OBJECTIVE, 0)
    policy.warm_start(start_with=favourites)
    policy.observe([evaluate(favourites[1])])
    assert policy.propose(5) == [favourites[0], *favourites[2:]]


def check_prior_is_neither_proposed_nor_observed(make: MakeReplayable) -> None:
    """What only another search measured is still to be measured here."""
    for space in (ONE_LAYER, SMALL):
        policy = make(space, OBJECTIVE, 1)
        policy.warm_start(prior=[evaluate(architecture) for architecture in space])
        assert not policy.observations
        assert not policy.pending
        proposed: list[Architecture] = []
        while batch := policy.propose(3):
            proposed += batch
            policy.observe([evaluate(architecture) for architecture in batch])
        assert len(set(proposed)) == len(proposed) == space.size


def check_warm_restored_equals_live(make: MakeReplayable) -> None:
    """Rebuilt with the same warm start, proposals and observations, it goes on as it would."""
    for space in (ONE_LAYER, SearchSpace(DIGITS), FIFTY_LAYERS):
        prior, rng = prior_of(space, 24), np.random.default_rng(2)
        favourites = list(dict.fromkeys(space.sample(rng) for _ in range(4)))
        live = make(space, OBJECTIVE, 5).warm_start(prior=prior, start_with=favourites)
        proposed: list[Architecture] = []
        observed: list[Observation] = []
        for count in (3, 4, 1, 5):
            rebuilt = make(space, OBJECTIVE, 5).warm_start(prior=prior, start_with=favourites)
            rebuilt.restore(proposed, observed)
            batch = live.propose(count)
            assert rebuilt.propose(count) == batch, f"{space!r}: after {len(proposed)} proposals"
            proposed += batch
            results = [evaluate(architecture) for architecture in reversed(batch)]
            live.observe(results)
            observed += results


def check_warm_start_is_for_new_policies(make: MakeReplayable) -> None:
    """Neither in the middle of a search nor twice; an empty one changes nothing."""
    uses: list[Callable[[ReplayablePolicy], object]] = [
        lambda policy: policy.propose(1),
        lambda policy: policy.observe([evaluate(next(iter(SMALL)))]),
        lambda policy: policy.warm_start(start_with=[next(iter(SMALL))]),
        lambda policy: policy.warm_start(prior=prior_of(SMALL, 3)),
    ]
    for use in uses:
        policy = make(SMALL, OBJECTIVE, 0)
        use(policy)
        _refused(partial(policy.warm_start, prior=prior_of(SMALL, 3)), RuntimeError)
    cold, empty = make(SMALL, OBJECTIVE, 0), make(SMALL, OBJECTIVE, 0)
    empty.warm_start()
    assert empty.propose(3) == cold.propose(3)


def check_refuses_impossible_prior(make: MakeReplayable) -> None:
    """NaN, out of range, of another space: InvalidObservation, and nothing is learned."""
    some = list(ONE_LAYER)
    good = Observation(some[0], Status.DONE, 0.5, {MODEL: 2.0})
    foreign = Architecture((LayerChoice(Operator.FC),))
    bad = [
        *(dataclasses.replace(good, accuracy=value) for value in (math.nan, 1.1, None)),
        *(dataclasses.replace(good, latency_ms={MODEL: value}) for value in (math.nan, 0.0)),
        Observation(foreign, Status.DONE, 0.5, {MODEL: 2.0}),
    ]
    policy, same = make(ONE_LAYER, OBJECTIVE, 2), make(ONE_LAYER, OBJECTIVE, 2)
    for observation in bad:
        _refused(partial(policy.warm_start, prior=[good, observation]), InvalidObservation)
    _refused(partial(policy.warm_start, prior=[good], start_with=[foreign]), InvalidObservation)
    assert policy.propose(4) == same.propose(4), "a refused warm start left a trace"


def check_prior_of_any_kind(make: MakeReplayable) -> None:
    """One result, many equal ones, and ones without what it needs: the search goes on."""
    space = SearchSpace(DIGITS)
    rng = np.random.default_rng(4)
    some = [space.sample(rng) for _ in range(30)]
    kinds: Sequence[Callable[[Architecture], Observation]] = (
        lambda a: Observation(a, Status.DONE, 0.5),
        lambda a: Observation(a, Status.DONE, 0.5, {"another model": 1.0}),
        lambda a: Observation(a, Status.DONE, 0.1, {MODEL: 8.0}),
        lambda a: Observation(a, Status.STOPPED, 0.4, {MODEL: 2.0}, rungs={1: 0.4}),
        lambda a: Observation(a, Status.STOPPED, 0.4, rungs={1: 0.4}),
        lambda a: Observation(a, Status.OVER_BUDGET, None, {MODEL: 8.0}),
        lambda a: Observation(a, Status.OVER_BUDGET, None, {MODEL: 1.0}),
        lambda a: Observation(a, Status.OVER_BUDGET, None, {"another model": 8.0}),
        lambda a: Observation(a, Status.FAILED),
    )
    for kind in kinds:
        for count in (1, len(some)):
            policy = make(space, OBJECTIVE, 0)
            policy.warm_start(prior=[kind(architecture) for architecture in some[:count]], start_with=some[:2])
            proposed, _ = search(policy, (3, 5))
            assert len(set(proposed)) == 8
            assert proposed[:2] == some[:2]


def _refused(call: Callable[[], object], expected: type[Exception]) -> None:
    try:
        call()
    except expected:
        return
    raise AssertionError(f"nothing was refused, expected {expected.__name__}")


WARM_START_CHECKS: tuple[Callable[[MakeReplayable], None], ...] = (
    check_begins_with_what_it_is_told,
    check_prior_is_neither_proposed_nor_observed,
    check_warm_restored_equals_live,
    check_warm_start_is_for_new_policies,
    check_refuses_impossible_prior,
    check_prior_of_any_kind,
)
