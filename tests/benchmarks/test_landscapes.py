"""The landscapes that searchers are compared on: deterministic, within their ranges, with an optimum worth the name."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks._landscapes import MODEL, Adversarial, Analytic, Landscape
from npas_ray.networks.backbone import DIGITS
from npas_ray.search.policy import Status
from npas_ray.search.reward import Mode
from npas_ray.space.search_space import SearchSpace

SPACE = SearchSpace(DIGITS)


@pytest.fixture(params=[Analytic, Adversarial])
def landscape(request: pytest.FixtureRequest) -> Landscape:
    made: Landscape = request.param(SPACE, seed=3)
    return made


def test_equal_seeds_are_equal_landscapes_and_others_are_not(landscape: Landscape) -> None:
    rows = landscape.random(50, np.random.default_rng(0))
    kind = type(landscape)
    same, other = kind(SPACE, seed=3), kind(SPACE, seed=4)  # type: ignore[call-arg]
    assert (same.accuracy(rows) == landscape.accuracy(rows)).all()
    assert (same.latency_ms(rows) == landscape.latency_ms(rows)).all()
    assert not np.allclose(other.accuracy(rows), landscape.accuracy(rows))


def test_one_row_is_worth_the_same_alone_and_among_others(landscape: Landscape) -> None:
    rows = landscape.random(20, np.random.default_rng(0))
    assert landscape.accuracy(rows[7:8])[0] == pytest.approx(landscape.accuracy(rows)[7])
    assert landscape.latency_ms(rows[7:8])[0] == pytest.approx(landscape.latency_ms(rows)[7])


def test_about_15_percent_keep_the_budget(landscape: Landscape) -> None:
    rows = landscape.random(3000, np.random.default_rng(1))
    assert 0.1 < (landscape.latency_ms(rows) <= landscape.budget_ms).mean() < 0.2


def test_the_optimum_keeps_the_budget_and_beats_random_ones(landscape: Landscape) -> None:
    best = landscape.best_rows(3)
    rows = landscape.random(3000, np.random.default_rng(1))
    rows = rows[landscape.latency_ms(rows) <= landscape.budget_ms]
    assert (landscape.latency_ms(best) <= landscape.budget_ms).all()
    assert (np.diff(landscape.accuracy(best)) <= 0).all()
    assert landscape.optimum() >= landscape.accuracy(rows).max()


def test_what_is_over_the_budget_is_measured_and_not_trained(landscape: Landscape) -> None:
    rows = landscape.random(200, np.random.default_rng(1))
    slow = landscape.encoding.decode(rows[landscape.latency_ms(rows).argmax()])
    seen = landscape.evaluate(slow, np.random.default_rng(0))
    assert seen.status is Status.OVER_BUDGET and seen.accuracy is None and seen.latency_ms[MODEL] > landscape.budget_ms
    landscape.train_all = True
    assert landscape.evaluate(slow, np.random.default_rng(0)).status is Status.DONE


def test_the_veto_refuses_what_is_far_over_the_budget_and_nothing_far_below(landscape: Landscape) -> None:
    rows = landscape.random(300, np.random.default_rng(1))
    load = landscape.latency_ms(rows) / landscape.budget_ms
    refused = np.array(landscape.surely_over([landscape.encoding.decode(row) for row in rows]))
    assert refused[load > 1.25].all() and not refused[load < 0.9].any()
    assert landscape.surely_over([]) == []


def test_the_predictor_is_wrong_by_the_same_each_time(landscape: Landscape) -> None:
    some = [landscape.encoding.decode(row) for row in landscape.random(200, np.random.default_rng(1))]
    first, again = landscape.predict(some)[MODEL], landscape.predict(some)[MODEL]
    errors = np.log(first / landscape.latency_ms(landscape.encoding.encode(some)))
    assert (first == again).all()
    assert 0.01 < errors.mean() < 0.03 and 0.02 < errors.std() < 0.04


def test_a_front_has_no_budget(landscape: Landscape) -> None:
    landscape.front = True
    assert landscape.objective.mode is Mode.FRONT and not landscape.objective.budgets_ms
    rows = landscape.random(200, np.random.default_rng(1))
    slow = landscape.encoding.decode(rows[landscape.latency_ms(rows).argmax()])
    assert landscape.evaluate(slow, np.random.default_rng(0)).status is Status.DONE
    assert landscape.true_point(slow)[1] > 1


def test_an_excess_of_the_true_latency_costs_as_much(landscape: Landscape) -> None:
    rows = landscape.random(500, np.random.default_rng(1))
    load = landscape.latency_ms(rows) / landscape.budget_ms
    for row, share in ((rows[load.argmin()], 0.0), (rows[load.argmax()], load.max() - 1)):
        expected = landscape.accuracy(row[None])[0] - share
        assert landscape.true_value(landscape.encoding.decode(row)) == pytest.approx(expected)
