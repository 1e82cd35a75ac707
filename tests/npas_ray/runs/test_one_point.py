"""A space of one architecture: every policy proposes it once, and the conductor says that there is no more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from npas_ray.errors import JournalError
from npas_ray.journal import Journal
from npas_ray.runs.conductor import Conductor
from npas_ray.search.ladder import Ladder
from npas_ray.search.policy import Status
from npas_ray.search.registry import GUESTS, POLICIES, make_policy
from npas_ray.testing.policy_conformance import MODEL, OBJECTIVE, ONE_POINT

SETTINGS = {"tune": {"searcher": "ray.tune.search.optuna:OptunaSearch"}}


@pytest.mark.parametrize("name", [*POLICIES, *GUESTS])
def test_one_candidate_then_the_end(tmp_path: Path, name: str) -> None:
    Journal.create(tmp_path / "journal.sqlite", config={}).close()
    policy = make_policy(name, ONE_POINT, OBJECTIVE, seed=0, settings=SETTINGS.get(name, {}))
    conductor = Conductor(
        Journal.open(tmp_path / "journal.sqlite"), policy, candidates=48, batch_size=5, ladder=Ladder((2,))
    )
    only = conductor.issue()
    assert only is not None
    assert only.architecture in ONE_POINT
    assert conductor.issue() is None
    conductor.measured(only.key, MODEL, {"latency_ms": 1.0, "ci_low_ms": 1.0, "ci_high_ms": 1.0})
    conductor.trained(only.key, {"accuracy": 0.5, "seed": 0, "epochs": 2})
    conductor.conclude(only.key, Status.DONE)
    assert conductor.issue() is None
    assert [candidate.status for candidate in conductor.candidates()] == [Status.DONE]


def test_results_of_strangers_are_refused(tmp_path: Path) -> None:
    Journal.create(tmp_path / "journal.sqlite", config={}).close()
    policy = make_policy("random", ONE_POINT, OBJECTIVE, seed=0)
    conductor = Conductor(Journal.open(tmp_path / "journal.sqlite"), policy, candidates=48, ladder=Ladder((2,)))
    calls: tuple[Callable[[], object], ...] = (
        lambda: conductor.trained("stranger", {"accuracy": 0.5, "seed": 0}),
        lambda: conductor.measured("stranger", MODEL, {"latency_ms": 1.0}),
        lambda: conductor.conclude("stranger", Status.DONE),
    )
    for tell in calls:
        with pytest.raises(JournalError, match="no candidate 'stranger' was proposed"):
            tell()
    assert not conductor.candidates()
