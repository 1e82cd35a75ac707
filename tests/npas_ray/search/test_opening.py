"""What is measured first where nothing is known of latency."""

from __future__ import annotations

import numpy as np
import pytest

from npas_ray.networks.backbone import DIGITS
from npas_ray.search.capacity import Capacity
from npas_ray.search.encoding import Encoding, IntArray
from npas_ray.search.moves import Moves
from npas_ray.search.npas_policy import NpasPolicy
from npas_ray.search.opening import Floats, best_within, spread_over
from npas_ray.search.policy import Observation, Status
from npas_ray.search.reward import Objective
from npas_ray.space.search_space import SearchSpace

SPACE = SearchSpace(DIGITS)
ENCODING = Encoding(SPACE)
MOVES = Moves(ENCODING)
CAPACITY = Capacity(ENCODING, DIGITS)
MACS = CAPACITY.macs


def _value(rows: IntArray) -> Floats:
    """Anything that rises with work, with exceptions."""
    return np.asarray(np.log(MACS(rows) + 1) + 0.3 * (rows[:, 0] % 5) - 0.2 * (rows[:, 3] % 4))


def test_work_is_spread_over_the_smaller_half() -> None:
    work = np.random.default_rng(0).permutation(100).astype(np.float64)
    order = spread_over(work, 5)
    assert work[order[:5]].tolist() == [0, 12, 25, 37, 50]
    assert sorted(order.tolist()) == list(range(100))


def test_the_best_of_every_size() -> None:
    """Each within its limit, better than all that the start has there, none twice and none that is known."""
    rng = np.random.default_rng(1)
    start = MOVES.random(120, rng)
    limits = np.quantile(MACS(start), [0.1, 0.3, 0.5])
    known = {row.tobytes() for row in start[:20]}

    def best(known: set[bytes]) -> IntArray:
        rng = np.random.default_rng(2)
        return best_within(limits, moves=MOVES, start=start, work=MACS, value=_value, known=known, rng=rng)

    rows = best(known)
    assert (MACS(rows) <= limits).all()
    for row, limit in zip(rows, limits, strict=True):
        within = start[MACS(start) <= limit]
        assert _value(row[None])[0] > _value(within).max()
    known |= {row.tobytes() for row in rows}
    again = best(known)
    assert not {row.tobytes() for row in again} & known
    assert len({row.tobytes() for row in again}) == 3


def test_a_limit_that_nothing_keeps_is_missed_by_little() -> None:
    start = MOVES.random(50, np.random.default_rng(1))
    rng = np.random.default_rng(2)
    row = best_within(np.array([-1.0]), moves=MOVES, start=start, work=MACS, value=_value, known=set(), rng=rng)[0]
    assert MACS(row[None])[0] <= MACS(start).min()


@pytest.mark.parametrize("seed", range(3))
def test_npas_opens_with_the_best_of_every_size_where_accuracies_are_known(seed: int) -> None:
    """As slow as those of a cold start, but better; the most accurate alone would be far slower."""
    rng = np.random.default_rng(seed)

    def accuracy(rows: IntArray) -> Floats:
        progress = 1.3 + 0.4 * CAPACITY(rows).sum(axis=1) + 0.1 * (rows[:, 0] % 3)
        return np.asarray(np.maximum(0.1, 1 - np.exp(-progress)))

    rows = MOVES.random(60, rng)
    prior = [
        Observation(ENCODING.decode(row), Status.DONE, float(value), {"another device": 1.0})
        for row, value in zip(rows, accuracy(rows), strict=True)
    ]
    objective = Objective({"phone": 1.0}, chance=0.1)
    opened = {}
    for name, known in (("cold", []), ("warm", prior)):
        policy = NpasPolicy(SPACE, objective, seed=seed)
        opened[name] = ENCODING.encode(policy.warm_start(prior=known).propose(5))
    assert (MACS(opened["warm"]) <= MACS(opened["cold"])).all()
    assert MACS(opened["warm"]).min() < 0.5 * MACS(opened["warm"]).max()
    assert accuracy(opened["warm"]).mean() > accuracy(opened["cold"]).mean() + 0.05
