from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from device_farm.calibration.breakeven import Verdict
from device_farm.calibration.file import Calibration
from npas_ray.calibration.points import breakeven_map
from npas_ray.calibration.store import predictors
from npas_ray.config import SearchConfig
from npas_ray.runs.setting import make_space
from npas_ray.search.registry import make_policy
from npas_ray.search.reward import Objective
from npas_ray.space.choices import Architecture

Invent = Callable[..., Calibration]
Law = Callable[[SearchConfig, Architecture], float]


def test_candidates_that_were_not_measured_are_known(small: SearchConfig, invent: Invent, latency_ms: Law) -> None:
    calibration = invent(small)
    known = {network.label for network in calibration.networks}
    space, rng = make_space(small), np.random.default_rng(5)
    asked = [a for a in (space.sample(rng) for _ in range(60)) if tuple(a.to_json()) not in known]
    by_model = predictors(small, {"local": calibration})
    true = np.array([latency_ms(small, a) for a in asked])
    errors = np.abs(by_model(asked)["local"] / true - 1)
    assert np.median(errors) < 0.01
    assert errors.max() < 0.06
    answer = by_model.by_model["local"].predict(asked)
    assert ((answer.low_ms <= true) & (true <= answer.high_ms)).mean() > 0.9


def test_only_what_is_sure_is_surely_over_its_budget(small: SearchConfig, invent: Invent, latency_ms: Law) -> None:
    by_model = predictors(small, {"local": invent(small)})
    space = make_space(small)
    slow = space.parse(["3x3"] * 7)
    fast = space.parse(["skip" if "skip" in map(str, space.choices(i)) else "1x1/block-based@5" for i in range(7)])
    middle = latency_ms(small, slow)
    sure = by_model.surely_over([slow, fast], {"local": 0.7 * middle})
    assert sure.tolist() == [True, False]
    assert not by_model.surely_over([slow], {"local": 0.995 * middle}).any()  # over, but within the interval
    assert not by_model.surely_over([slow], {"another": 1e-9}).any()


def test_the_map_finds_what_winograd_makes_unprofitable(small: SearchConfig, invent: Invent) -> None:
    """By our law a dense 3x3 by Winograd is as fast as a rate of 3: a rate of 2 goes that way too, 5 is faster."""
    calibration = invent(small)
    predictor = predictors(small, {"local": calibration}).by_model["local"]
    measured = [Architecture.from_json(list(network.label)) for network in calibration.networks]
    points = breakeven_map(make_space(small), predictor, measured)
    verdicts = {(point.layer, point.choice): point.verdict for point in points}
    assert verdicts["block1", "3x3/block-punched@2"] is not Verdict.PAYS
    assert verdicts["block1", "3x3/block-punched@5"] is Verdict.PAYS
    assert verdicts["block3", "3x3/block-punched@2"] is Verdict.PAYS  # stride 2: no Winograd
    assert verdicts["block6", "1x1/block-based@5"] is Verdict.PAYS
    assert not any(point.choice in ("3x3", "1x1", "skip") for point in points)
    assert all(point.against in ("3x3", "1x1") and point.seen >= 1 for point in points)


def test_without_a_dense_rival_there_is_nothing_to_beat(invent: Invent) -> None:
    config = SearchConfig.from_json(
        {"name": "pruned", "space": {"operators": ["3x3"], "schemes": ["block-punched"], "rates": [2, 5]}}
    )
    predictor = predictors(config, {"local": invent(config)}).by_model["local"]
    assert breakeven_map(make_space(config), predictor, []) == ()


@pytest.mark.parametrize("budget", [0.5, 0.8])
def test_a_policy_takes_it_as_its_predictor(
    small: SearchConfig, invent: Invent, latency_ms: Law, budget: float
) -> None:
    space = make_space(small)
    limit = budget * latency_ms(small, space.parse(["3x3"] * 7))
    objective = Objective({"local": limit})
    by_model = predictors(small, {"local": invent(small)})
    policy = make_policy("npas", space, objective, seed=0, settings={"latency_predictor": by_model})
    blind = make_policy("random", space, objective, seed=0)
    assert all(latency_ms(small, a) <= 1.05 * limit for a in policy.propose(8))
    assert any(latency_ms(small, a) > limit for a in blind.propose(8)) or budget == 0.8
