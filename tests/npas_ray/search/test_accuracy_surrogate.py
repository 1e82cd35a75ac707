"""What the npas policy believes of accuracies: the trend, the rungs, and which candidate it recommends."""

from __future__ import annotations

import numpy as np
import pytest

from npas_ray.networks.backbone import DIGITS
from npas_ray.search.accuracy_surrogate import AccuracySurrogate, progress
from npas_ray.search.capacity import Capacity
from npas_ray.search.encoding import Encoding, IntArray
from npas_ray.search.evolved_pool import evolve
from npas_ray.search.moves import Moves
from npas_ray.search.policy import Observation, Status
from npas_ray.search.registry import make_policy
from npas_ray.search.reward import Objective
from npas_ray.search.rung_relation import RungRelation, relations
from npas_ray.space.choices import Architecture
from npas_ray.space.search_space import SearchSpace

SPACE = SearchSpace(DIGITS)
ENCODING = Encoding(SPACE)
MOVES = Moves(ENCODING)
CAPACITY = Capacity(ENCODING, DIGITS)


def surrogate(max_results: int = 100) -> AccuracySurrogate:
    return AccuracySurrogate(ENCODING, CAPACITY, max_results=max_results)


def truth(rows: IntArray) -> np.ndarray:
    """Accuracies: each layer's rate matters, the last layers' more."""
    rates = np.stack([np.log([c.rate for c in of])[rows[:, i]] for i, of in enumerate(ENCODING.choices)], axis=1)
    return np.asarray(1 - np.exp(-2.2 + 0.08 * rates @ np.arange(1, 8) / 4))


def test_capacity_is_standardised_and_knows_what_is_kept() -> None:
    traits = CAPACITY(MOVES.random(4000, np.random.default_rng(0)))
    np.testing.assert_allclose(traits.mean(axis=0), 0, atol=0.1)
    np.testing.assert_allclose(traits.std(axis=0), 1, atol=0.1)
    rich, poor = (ENCODING.encode([SPACE.parse([text] * 7)]) for text in ("3x3", "3x3/filter@10"))
    assert (CAPACITY(rich) > CAPACITY(poor)).all()
    assert CAPACITY.macs(rich)[0] == pytest.approx(10 * CAPACITY.macs(poor)[0])


def test_before_any_result_richer_networks_are_believed_to_be_better() -> None:
    rows = ENCODING.encode([SPACE.parse(["3x3"] * 7), SPACE.parse(["3x3/filter@10"] * 7)])
    belief = surrogate().belief()
    mean, std = belief.predict(rows)
    assert mean[0] > mean[1]
    np.testing.assert_allclose(std**2, np.diag(belief.joint(rows)[1]))


def test_belief_comes_from_results_alone_and_finds_the_better_ones() -> None:
    rng = np.random.default_rng(0)
    rows, test = MOVES.random(40, rng), MOVES.random(200, rng)
    asked, silent = surrogate(), surrogate()
    for row, accuracy in zip(rows, truth(rows), strict=True):
        for one in (asked, silent):
            one.learn(row, float(accuracy), complete=True, rungs={})
        asked.belief()
    mean, std = asked.belief().predict(test)
    np.testing.assert_array_equal(mean, silent.belief().predict(test)[0])
    assert np.corrcoef(mean, progress(truth(test)))[0, 1] > 0.8
    accuracy, deviation = silent.belief(as_accuracy=True).predict(test)
    assert np.corrcoef(accuracy, truth(test))[0, 1] > 0.8
    assert np.mean(np.abs(accuracy - truth(test)) < 2 * deviation) > 0.8
    assert std.min() > 0


def test_it_learns_from_the_best_and_the_latest_when_there_are_too_many() -> None:
    one = surrogate(max_results=10)
    rows = MOVES.random(30, np.random.default_rng(0))
    for place, row in enumerate(rows):
        one.learn(row, 0.9 if place in (3, 7) else 0.5, complete=True, rungs={})
    assert one.belief().results.tolist()[-5:] == [25, 26, 27, 28, 29]
    assert {3, 7} <= set(one.belief().results.tolist())


def test_a_relation_of_a_rung_is_a_line_with_its_error() -> None:
    rng = np.random.default_rng(0)
    rung = rng.normal(1.5, 0.3, 60)
    relation = RungRelation.fit(rung.tolist(), (0.4 + 0.9 * rung + rng.normal(0, 0.05, 60)).tolist())
    assert relation is not None
    mean, variance = relation(2.0)
    assert mean == pytest.approx(2.2, abs=0.05)
    assert 0.03 < np.sqrt(variance) < 0.1
    assert relation(9.0)[1] > variance  # far from what was seen
    assert RungRelation.fit([1.0, 2.0], [1.0, 2.0]) is None
    assert list(relations([({1: 0.1 * i, 2: 0.2 * i}, 0.2 * i) for i in range(4)])) == [1]


def test_stopped_candidates_are_learned_as_what_their_rung_says() -> None:
    rng = np.random.default_rng(0)
    rows = MOVES.random(40, rng)
    top = truth(rows)
    low = 1 - (1 - top) * 1.5  # one epoch: half as many errors again
    done, both = surrogate(), surrogate()
    for place, row in enumerate(rows):
        if place < 12:
            for one in (done, both):
                one.learn(row, float(top[place]), complete=True, rungs={1: float(low[place]), 2: float(top[place])})
        else:
            both.learn(row, float(low[place]), complete=False, rungs={1: float(low[place])})
    assert both.belief().results.tolist() == list(range(40))
    test = MOVES.random(200, rng)
    gap = [np.corrcoef(one.belief().predict(test)[0], progress(truth(test)))[0, 1] for one in (done, both)]
    assert gap[1] > gap[0]
    fitted = both.belief(as_accuracy=True).fitted
    assert np.abs(fitted - top)[12:].mean() < 0.5 * (top - low)[12:].mean()


def test_a_rung_that_nobody_climbed_from_says_nothing() -> None:
    one = surrogate()
    rows = MOVES.random(6, np.random.default_rng(0))
    for row in rows:
        one.learn(row, 0.5, complete=False, rungs={1: 0.5})
    one.learn(rows[0], 0.4, complete=False, rungs={})
    assert len(one.belief().results) == 0
    assert np.isfinite(one.belief().predict(rows)[0]).all()


def test_evolution_climbs_and_leaves_out_what_is_known() -> None:
    rng = np.random.default_rng(0)
    start = MOVES.random(40, rng)
    known = {row.tobytes() for row in start[:20]}
    pool = evolve(MOVES, start, lambda rows: truth(rows), known=known, size=80, rounds=8, rng=rng)
    assert not known & {row.tobytes() for row in pool}
    assert len(np.unique(pool, axis=0)) == len(pool)
    assert (np.diff(truth(pool)) <= 1e-9).all()
    assert truth(pool[:1])[0] > truth(start).max()
    every = {row.tobytes() for row in start}
    assert evolve(MOVES, start, lambda rows: truth(rows), known=every, size=8, rounds=2, rng=rng).shape == (0, 7)


OBJECTIVE = Objective({"phone": 2.0}, chance=0.1)


def _done(architecture: Architecture, accuracy: float, latency_ms: float = 1.0) -> Observation:
    return Observation(architecture, Status.DONE, accuracy, {"phone": latency_ms})


@pytest.mark.parametrize("name", ["npas", "random"])
def test_recommended_are_trained_within_the_budgets_and_observed_here(name: str) -> None:
    rng = np.random.default_rng(0)
    a, b, over, stopped, failed, elsewhere = (SPACE.sample(rng) for _ in range(6))
    policy = make_policy(name, SPACE, OBJECTIVE, seed=0)
    policy.warm_start(prior=[_done(elsewhere, 0.99)])
    assert policy.recommend(3) == []
    policy.observe(
        [
            _done(a, 0.6),
            _done(b, 0.8),
            _done(over, 0.9, latency_ms=3.0),
            Observation(stopped, Status.STOPPED, 0.95, {"phone": 1.0}, rungs={1: 0.95}),
            Observation(failed, Status.FAILED),
        ]
    )
    before = policy.propose(2)
    assert policy.recommend(9) == [b, a]
    assert policy.recommend(1) == [b]
    same = make_policy(name, SPACE, OBJECTIVE, seed=0).warm_start(prior=[_done(elsewhere, 0.99)])
    same.observe(policy.observations)
    assert same.propose(2) == before


def test_npas_does_not_recommend_the_lucky_one() -> None:
    """A candidate of the better half is flattered by one training: it measures best, and is believed not to be."""
    rng = np.random.default_rng(1)
    rows = MOVES.random(60, rng)
    accuracies = truth(rows)
    flattered = int(np.argsort(accuracies)[42])
    seen = np.clip(accuracies + rng.normal(0, 0.01, len(rows)), 0, 1)
    seen[flattered] = seen.max() + 0.002
    policy, naive = (make_policy(name, SPACE, OBJECTIVE, seed=0) for name in ("npas", "random"))
    for one in (policy, naive):
        one.observe([_done(ENCODING.decode(row), float(value)) for row, value in zip(rows, seen, strict=True)])
    lucky = ENCODING.decode(rows[flattered])
    assert naive.recommend(1) == [lucky]
    best = policy.recommend(1)
    assert best != [lucky]
    assert truth(ENCODING.encode(best))[0] > accuracies[flattered]
