from __future__ import annotations

import pytest

from npas_ray.config import SearchConfig
from npas_ray.errors import ConfigError
from npas_ray.runs.setting import make_objective
from npas_ray.search.reward import Mode


def config(devices: list[dict[str, object]] | None = None, **objective: object) -> SearchConfig:
    return SearchConfig.from_json({"name": "t", "objective": objective, "devices": devices or [{"kind": "local"}]})


PHONES: list[dict[str, object]] = [
    {"kind": "adb", "model": "fast", "target": "aarch64-neon"},
    {"kind": "adb", "model": "slow", "target": "aarch64-neon"},
]


def test_the_default_is_the_best_network() -> None:
    assert config().axes == ()
    objective = make_objective(config(budgets_of_dense={"local": 0.5}), {"local": 2.0})
    assert (objective.mode, objective.budgets_ms, objective.certainty) == (Mode.BEST, {"local": 1.0}, 0.975)


def test_latency_is_the_one_on_every_model() -> None:
    assert config(PHONES, mode="front").axes == ("latency:fast", "latency:slow")
    assert config(PHONES, mode="front", axes=["size", "latency:slow"]).axes == ("size", "latency:slow")


def test_a_front_ends_at_the_dense_network_or_at_a_budget() -> None:
    asked = config(PHONES, mode="front", axes=["latency", "size", "energy"], budgets_of_dense={"slow": 0.5})
    objective = make_objective(asked, {"fast": 2.0, "slow": 6.0})
    assert objective.mode is Mode.FRONT
    assert objective.reference_of("latency:fast") == 2.0
    assert objective.reference_of("latency:slow") == 3.0
    assert (objective.reference_of("size") or 0) > 500_000
    assert (objective.reference_of("energy") or 0) > 100
    assert SearchConfig.from_json(asked.to_json()) == asked


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        ({"mode": "pareto"}, "objective.mode: expected one of best, front; got 'pareto'"),
        ({"mode": "fornt"}, "did you mean 'front'?"),
        ({"axes": ["size"]}, "objective.axes: expected nothing here, as objective.mode is best"),
        ({"mode": "front", "axes": []}, "objective.axes: expected a list of axes, at least one"),
        ({"mode": "front", "axes": ["accuracy"]}, r"latency:MODEL, size or energy; the accuracy always is one; got"),
        ({"mode": "front", "axes": ["size", "size"]}, r"objective.axes\[1\]: expected every item once"),
        ({"mode": "front", "axes": ["latency:slwo"]}, "did you mean 'latency:slow'?"),
        ({"mode": "front", "axes": ["latency", "latency:slow"]}, "no second axis for it beside 'latency'"),
        ({"certainty": 1.0}, "objective.certainty: expected a number in 0.5..0.9999; got 1.0"),
        ({"certainty": 0.1}, "objective.certainty"),
        ({"budgets_ms": {"slow": 1.0}, "budgets_of_dense": {"slow": 0.5}}, "no second budget beside budgets_ms"),
    ],
)
def test_what_is_wrong_is_said_in_words(objective: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(PHONES, **objective)
