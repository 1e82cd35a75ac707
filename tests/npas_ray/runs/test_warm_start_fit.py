"""What of a source suits a search: whose accuracies, whose latencies, which candidates first."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npas_ray.config import SearchConfig
from npas_ray.journal import Journal
from npas_ray.runs.setting import make_space
from npas_ray.runs.warm_start import WarmStart, gather
from npas_ray.runs.warm_start_fit import fit, why_changed
from npas_ray.runs.warm_start_sources import Found, Source
from npas_ray.search.policy import Status
from npas_ray.search.reward import Objective
from npas_ray.space.choices import Architecture
from npas_ray.testing.earlier_runs import config_with, dense_ms


def taken(config: SearchConfig, other: Path, dense: dict[str, Any] | None = None, **options: Any) -> WarmStart:
    objective = options.pop("objective", Objective({"local": 0.06}, chance=0.1))
    here = {"local": dense or dense_ms()}
    return gather(config, own_path=other / "no", space=make_space(config), objective=objective, dense=here)


def test_the_same_search_takes_everything(other: Path) -> None:
    found = taken(config_with({"run": str(other)}), other)
    statuses = [observation.status for observation in found.prior]
    assert (statuses.count(Status.DONE), statuses.count(Status.OVER_BUDGET)) == (38, 7)
    assert all(observation.latency_ms for observation in found.prior)
    assert found.said == (
        f"45 of 45 candidates of {other} fit this space",
        "  38 accuracies after 2 epochs are learned",
        "  latencies on local are learned",
        "  5 are measured here first",
    )
    within = [o for o in found.prior if o.status is Status.DONE and o.latency_ms["local"] <= 0.06]
    best = sorted(within, key=lambda observation: -(observation.accuracy or 0))
    assert list(found.start_with) == [observation.architecture for observation in best[:5]]


def test_of_another_device_accuracies_only(other: Path) -> None:
    changed = {"processor": "Another"} | {"cores": 4}
    found = taken(config_with({"run": str(other), "start_with": 5}), other, dense_ms(details=changed))
    assert len(found.prior) == 38
    assert not any(observation.latency_ms for observation in found.prior)
    assert "  latencies on local are ignored: another device, its processor differs" in found.said
    with Journal.open(other / "journal.sqlite", read_only=True) as journal:
        latency = {c.architecture: c.latency_ms["local"] for c in journal.candidates() if c.status is Status.DONE}
        accuracy = {c.architecture: c.accuracy or 0.0 for c in journal.candidates() if c.status is Status.DONE}
    chosen = found.start_with  # spread over its front, as nobody knows where the budget is on it
    assert accuracy[chosen[0]] == max(accuracy.values())
    assert [latency[a] for a in chosen] == sorted((latency[a] for a in chosen), reverse=True)
    for a in chosen:
        assert not any(accuracy[b] > accuracy[a] and latency[b] < latency[a] for b in accuracy)


def test_of_another_device_the_best_are_not_first_where_the_policy_knows_better(other: Path) -> None:
    changed = dense_ms(details={"processor": "Another"})
    source = {"run": str(other)}
    found = taken(config_with(source), other, changed)
    assert len(found.prior) == 38
    assert not found.start_with
    assert "what is measured first is chosen by the accuracies" in found.said[-1]
    assert len(taken(config_with(source, search={"policy": "evolution"}), other, changed).start_with) == 5
    assert len(taken(config_with(source), other, changed, objective=Objective()).start_with) == 5  # without a budget
    another_task = config_with(source, task={"train_images": 500})
    assert len(taken(another_task, other, changed).start_with) == 5  # no accuracies to choose by


@pytest.mark.parametrize(
    ("here", "reason"),
    [
        (dense_ms(0.105), None),
        (dense_ms(serial="s2"), None),
        (dense_ms(details={"processor": "AMD EPYC", "cores": 4, "allowed_cores": [7], "half": True}), None),
        (dense_ms(target="aarch64"), "another target, x86_64-avx512 instead of aarch64"),
        (dense_ms(emulated=True), "another emulated"),
        (dense_ms(threads=2), "another threads, 1 instead of 2"),
        (dense_ms(details={"cores": 8}), "its cores differs"),
        (dense_ms(key="other"), "another compiler"),
        (dense_ms(0.12), "took 0.1 ms there and takes 0.12 ms here"),
        (None, "was not measured"),
    ],
)
def test_when_a_latency_still_holds(here: dict[str, Any] | None, reason: str | None) -> None:
    found = why_changed(dense_ms(), here)
    assert found is None if reason is None else reason in str(found)
    assert reason is None or why_changed(here, dense_ms()) is not None


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"task": {"train_images": 500}}, "they are of the task 'digits' with 2000 training images, here"),
        ({"training": {"epochs": 1}}, "none was trained for 1 epoch or fewer"),
    ],
)
def test_accuracies_of_another_kind_are_not_learned(other: Path, sections: dict[str, Any], said: str) -> None:
    found = taken(config_with({"run": str(other)}, **sections), other)
    assert {observation.status for observation in found.prior} == {Status.OVER_BUDGET}
    assert all(observation.accuracy is None for observation in found.prior)
    assert f"accuracies are not learned: {said}" in found.said[1]
    assert len(found.start_with) == 5


def test_accuracies_of_fewer_epochs_are_of_a_lower_rung(other: Path) -> None:
    found = taken(config_with({"run": str(other)}, training={"epochs": 5}), other)
    trained = [observation for observation in found.prior if observation.accuracy is not None]
    assert len(trained) == 38
    assert all(o.status is Status.STOPPED and o.rungs == {2: o.accuracy} for o in trained)
    assert "0 accuracies after 5 epochs are learned, and 38 of fewer epochs as those of a lower rung" in found.said[1]


def test_a_smaller_space_takes_what_fits_and_says_the_rest(other: Path) -> None:
    config = config_with({"run": str(other)}, space={"rates": [1, 2, 2.5, 3, 5, 7]})
    found = taken(config, other)
    space = make_space(config)
    assert 0 < len(found.prior) < 45
    assert all(observation.architecture in space for observation in found.prior)
    lost = 45 - len(found.prior)
    assert (
        found.said[0]
        == f"{len(found.prior)} of 45 candidates of {other} fit this space; {lost} have rates that it lacks"
    )
    assert all(architecture in space for architecture in found.start_with)
    assert "as the nearest candidate that this space has" in found.said[-1]
    without = config_with({"run": str(other)}, space={"operators": ["3x3", "skip"], "schemes": ["filter"]})
    assert "have operators that it lacks" in taken(without, other).said[0]


def test_another_number_of_layers(other: Path) -> None:
    space = make_space(config_with())
    short = Source("s", (Found(Architecture(space.sample(np.random.default_rng(0)).layers[:3])),), chosen=True)
    found = fit(short, config=config_with(), space=space, objective=Objective(), dense=None)
    assert found.said == (
        "0 of 1 architectures of s fit this space; 1 has 3 layers instead of 7",
        "0 are measured here first",
    )
    assert not found.start_with


def test_the_first_source_counts_and_the_best_of_all_come_first(other: Path, tmp_path: Path) -> None:
    twin = Path(shutil.copytree(other, tmp_path / "twin"))
    config = config_with({"run": str(other), "start_with": 1}, {"run": str(twin), "start_with": 2})
    found = taken(config, other)
    assert len(found.prior) == 45
    assert len(found.start_with) == 2  # the best of both is one and the same
