"""Searchers of others: Ray's own OptunaSearch really, and small ones with the manners that searchers have."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from npas_ray.errors import ConfigError
from npas_ray.networks.backbone import DIGITS
from npas_ray.search.policy import Observation, Policy, Status
from npas_ray.search.registry import make_policy
from npas_ray.search.reward import Objective
from npas_ray.search.tune_policy import TunePolicy
from npas_ray.space.search_space import SearchSpace
from npas_ray.testing import policy_conformance
from npas_ray.testing.policy_conformance import CHECKS, MODEL, OBJECTIVE, SMALL, MakePolicy, evaluate, search

OPTUNA = "ray.tune.search.optuna:OptunaSearch"


class Own(Searcher):
    """Suggests the same list of configurations to everybody, and keeps what it is told."""

    configs: list[Any] = []  # noqa: RUF012 - set by each test

    def __init__(self, metric: str = "reward", mode: str = "max", points_to_evaluate: Any = None) -> None:
        super().__init__(metric=metric, mode=mode)
        self.queue = [*(points_to_evaluate or []), *type(self).configs]
        self.told: list[tuple[str, float | None]] = []
        self.space: dict[str, Any] = {}

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **_: Any) -> bool:
        self.space = config
        return True

    def suggest(self, trial_id: str) -> Any:
        return self.queue.pop(0) if self.queue else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self.told.append((trial_id, None if error or result is None else result["reward"]))


class Forgetful(Own):
    """One that cannot be told of the past."""

    def __init__(self) -> None:
        super().__init__()


def own(configs: list[Any], *, kind: type[Own] = Own, parameters: str = "choices") -> TunePolicy:
    kind.configs = configs
    settings = {"searcher": f"{__name__}:{kind.__name__}", "parameters": parameters}
    policy = make_policy("tune", SMALL, Objective(), seed=0, settings=settings)
    assert isinstance(policy, TunePolicy)
    return policy


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """This module, as `importlib` mode gives it no name in sys.modules that a configuration could name."""
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or type(sys)(__name__))
    for kind in (Own, Forgetful):
        monkeypatch.setattr(sys.modules[__name__], kind.__name__, kind, raising=False)


def _searcher(policy: TunePolicy) -> Any:
    assert policy._questioned is not None
    return policy._questioned._searcher


def config(*layers: str) -> dict[str, str]:
    return dict(zip(SMALL.layer_names, layers, strict=True))


def done(architecture: Any, accuracy: float) -> Observation:
    return Observation(architecture, Status.DONE, accuracy, {MODEL: 1.0})


#: what a stranger's searcher cannot promise: that it goes on as it would have, rebuilt from its results
REPLAYS = (policy_conformance.check_restored_equals_live, policy_conformance.check_stopped_by_a_ladder)


@pytest.mark.parametrize("parameters", ["choices", "factors", "numbers"])
@pytest.mark.parametrize(
    "check",
    [check for check in CHECKS if check not in REPLAYS],
    ids=lambda check: check.__name__.removeprefix("check_"),
)
def test_optuna_search_passes_the_suite(check: Callable[[MakePolicy], None], parameters: str) -> None:
    def make(space: SearchSpace, objective: Objective, seed: int) -> Policy:
        settings = {"searcher": OPTUNA, "parameters": parameters}
        return make_policy("tune", space, objective, seed=seed, settings=settings)

    check(make)


def test_optuna_search_learns_and_is_told_again_after_a_restart() -> None:
    space = SearchSpace(DIGITS)
    settings = {"searcher": OPTUNA}
    policy = make_policy("tune", space, OBJECTIVE, seed=0, settings=settings)
    proposed, observed = search(policy, (1,) * 20)
    under_way = policy.propose(2)
    restored = make_policy("tune", space, OBJECTIVE, seed=0, settings=settings)
    restored.restore([*proposed, *under_way], observed)
    [new] = restored.propose(1)
    assert new not in {*proposed, *under_way}
    study = _searcher(restored)._ot_study  # type: ignore[arg-type]
    told = [trial.value for trial in study.trials if trial.value is not None]
    assert told == [r for r in map(OBJECTIVE.reward, observed) if r is not None]
    restored.observe([evaluate(architecture) for architecture in [*under_way, new]])
    assert isinstance(_searcher(restored), OptunaSearch)  # type: ignore[arg-type]


def test_a_searcher_of_ones_own_is_asked_and_told() -> None:
    policy = own([config("3x3", "3x3", "3x3"), config("3x3", "skip", "3x3")])
    first, second = policy.propose(1) + policy.propose(1)
    assert [first.to_json(), second.to_json()] == [["3x3", "3x3", "3x3"], ["3x3", "skip", "3x3"]]
    policy.observe([done(second, 0.5), Observation(first, Status.FAILED)])
    assert _searcher(policy).told == [("npas-000001", 0.5), ("npas-000000", None)]
    assert list(_searcher(policy).space) == list(SMALL.layer_names)
    assert policy.propose(1) == []  # it is finished: no random ones


def test_a_repeated_suggestion_is_answered_and_another_is_asked_for() -> None:
    same, other = config("3x3", "3x3", "3x3"), config("skip", "3x3", "3x3")
    policy = own([same, same, same, other])
    [first] = policy.propose(1)
    policy.observe([done(first, 0.7)])
    [second] = policy.propose(1)
    assert second.to_json() == ["skip", "3x3", "3x3"]
    assert _searcher(policy).told == [("npas-000000", 0.7), ("npas-000001", 0.7), ("npas-000002", 0.7)]


def test_a_suggestion_that_is_under_way_waits_for_its_result() -> None:
    same, other = config("3x3", "3x3", "3x3"), config("skip", "3x3", "3x3")
    policy = own([same, same, other])
    [first], [_] = policy.propose(1), policy.propose(1)
    assert _searcher(policy).told == []
    policy.observe([done(first, 0.7)])
    assert _searcher(policy).told == [("npas-000000", 0.7), ("npas-000001", 0.7)]


def test_an_illegal_suggestion_is_an_error_to_the_searcher(caplog: pytest.LogCaptureFixture) -> None:
    policy = own([config("3x3", "5x5", "3x3"), {"nonsense": 1}, config("3x3", "3x3", "3x3")])
    with caplog.at_level(logging.WARNING):
        [only] = policy.propose(1)
    assert only.to_json() == ["3x3", "3x3", "3x3"]
    assert _searcher(policy).told == [("npas-000000", None), ("npas-000001", None)]
    assert f"Own suggested {SMALL.layer_names[1]}='5x5', which is not in the space: passed over" in caplog.text


def test_a_searcher_that_waits_gets_random_company() -> None:
    policy = own([None, config("3x3", "3x3", "3x3")])
    [random] = policy.propose(1)
    assert random in SMALL
    policy.observe([done(random, 0.3)])  # it did not suggest that, and has no way to be told
    assert _searcher(policy).told == []


def test_points_to_evaluate_tell_of_the_past() -> None:
    policy = own([config("3x3", "3x3", "3x3"), config("3x3", "skip", "3x3")])
    [first], [second] = policy.propose(1), policy.propose(1)
    restored = own([config("skip", "skip", "skip")])
    restored.restore([first, second], [done(first, 0.6)])
    [third] = restored.propose(1)
    assert third.to_json() == ["skip", "skip", "skip"]
    assert _searcher(restored).told == [("npas-000000", 0.6)]
    restored.observe([done(second, 0.2)])
    assert _searcher(restored).told[1:] == [("npas-000001", 0.2)]


def test_a_searcher_that_cannot_be_told_is_named(caplog: pytest.LogCaptureFixture) -> None:
    restored = own([config("skip", "skip", "skip"), config("3x3", "skip", "skip")], kind=Forgetful)
    first = next(iter(SMALL))
    restored.restore([first], [done(first, 0.6)])
    with caplog.at_level(logging.WARNING):
        restored.propose(1)
    assert "Forgetful was told 0 of 1 earlier results: it has neither add_evaluated_point nor" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "searcher names a class, such as 'ray.tune.search.optuna:OptunaSearch'"),
        ({"searcher": "OptunaSearch"}, "searcher is written as 'module:Class', got 'OptunaSearch'"),
        ({"searcher": "no_such_module:X"}, "cannot be imported: No module named 'no_such_module'"),
        ({"searcher": "ray.tune.search.optuna:Optuna"}, "module 'ray.tune.search.optuna' has no 'Optuna'"),
        ({"searcher": "collections:OrderedDict"}, "is no subclass of ray.tune.search.Searcher"),
        ({"searcher": OPTUNA, "arguments": {"sede": 1}}, "OptunaSearch cannot be made: TypeError: .*sede"),
        ({"searcher": OPTUNA, "arguments": [1]}, r"arguments is a mapping, got \[1\]"),
        ({"searcher": OPTUNA, "parameters": "words"}, "parameters is one of choices, factors, numbers, got 'words'"),
        ({"searcher": OPTUNA, "seacher": "x"}, "'tune' has no setting 'seacher', did you mean 'searcher'"),
    ],
)
def test_refusals(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_policy("tune", SMALL, Objective(), seed=0, settings=settings)
