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


def _stopped(architecture: Architecture) -> Observation:
    """As `evaluate`, with a ladder of 0, 1 and 2 epochs: a third of those that are trained are stopped on the way."""
    whole = evaluate(architecture)
    if whole.status is not Status.DONE or whole.accuracy is None:
        return whole
    climbed = {0: 0.4 * whole.accuracy, 1: 0.8 * whole.accuracy, 2: whole.accuracy}
    last = int(architecture.key, 16) % 3  # the rung that it came to
    rungs = {epochs: accuracy for epochs, accuracy in climbed.items() if epochs <= last}
    status = Status.DONE if last == 2 else Status.STOPPED
    return dataclasses.replace(whole, status=status, accuracy=rungs[last], rungs=rungs)


def check_stopped_by_a_ladder(make: MakePolicy) -> None:
    """Results with rungs, of candidates that were stopped on any of them; one of them is trained to the end later.

    Rebuilt from them the policy goes on as it would.
    """
    for space in (ONE_LAYER, SearchSpace(DIGITS)):
        live = make(space, OBJECTIVE, 6)
        proposed: list[Architecture] = []
        observed: list[Observation] = []
        for count in (6, 6, 6, 3, 2):
            rebuilt = make(space, OBJECTIVE, 6)
            rebuilt.restore(proposed, observed)
            batch = live.propose(count)
            assert rebuilt.propose(count) == batch, f"{space!r}: after {len(proposed)} proposals"
            results = [_stopped(architecture) for architecture in batch]
            promoted = [evaluate(o.architecture) for o in observed if o.status is Status.STOPPED][:1]
            live.observe([*results, *promoted])
            proposed += batch
            observed += [*results, *promoted]
        # of the small space all is tried, so some were
        assert space is not ONE_LAYER or any(o.status is Status.STOPPED for o in observed)


def check_noisy_results(make: MakePolicy) -> None:
    """The same candidate measured again and again, never with the same result, and with intervals."""
    space, rng = SearchSpace(DIGITS), np.random.default_rng(0)
    policy = make(space, OBJECTIVE, 0)
    known: list[Observation] = []
    for _ in range(5):
        batch = policy.propose(4)
        assert len(set(batch)) == 4
        known += [evaluate(architecture) for architecture in batch]
        policy.observe([_noisy(observation, rng) for observation in [*known[-4:], *known[:3]]])
    assert not {o.architecture for o in known} & set(policy.propose(4))


def _noisy(observation: Observation, rng: np.random.Generator) -> Observation:
    accuracy, latency_ms = (
        observation.accuracy,
        {m: ms * rng.lognormal(0, 0.1) for m, ms in observation.latency_ms.items()},
    )
    return dataclasses.replace(
        observation,
        accuracy=None if accuracy is None else float(np.clip(accuracy + rng.normal(0, 0.1), 0, 1)),
        latency_ms=latency_ms,
        latency_ci_ms={model: (0.9 * ms, 1.2 * ms) for model, ms in latency_ms.items()},
    )


def check_results_that_come_late(make: MakePolicy) -> None:
    """Forty proposals one at a time with up to twelve under way, whose results come in any order and in any groups."""
    space, rng = SearchSpace(DIGITS), np.random.default_rng(1)
    policy = make(space, OBJECTIVE, 0)
    under_way: list[Architecture] = []
    proposed: list[Architecture] = []
    while len(proposed) < 40:
        [one] = policy.propose(1)
        proposed.append(one)
        under_way.append(one)
        if len(under_way) > 12:
            ended = [under_way.pop(int(rng.integers(len(under_way)))) for _ in range(int(rng.integers(1, 12)))]
            policy.observe([evaluate(architecture) for architecture in ended])
    assert len(set(proposed)) == 40


def check_a_veto(make: MakePolicy) -> None:
    """What a veto refuses is proposed only when there is nothing else; without it nothing is kept back."""
    policy = make(ONE_LAYER, OBJECTIVE, 0)
    if not hasattr(policy, "veto"):
        return
    allowed = [a for a in ONE_LAYER if a.layers[0].rate <= 2]
    policy.veto = lambda some: [a not in allowed for a in some]
    first = [a for _ in range(len(allowed)) for a in policy.propose(1)]
    assert set(first) == set(allowed)
    assert set(policy.propose(1000)) == set(ONE_LAYER) - set(allowed)


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
    check_stopped_by_a_ladder,
    check_noisy_results,
    check_results_that_come_late,
    check_a_veto,
)
