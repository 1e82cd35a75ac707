from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npas_ray.config import SearchConfig
from npas_ray.errors import ConfigError, RunError
from npas_ray.journal import Journal
from npas_ray.reports import write_reports
from npas_ray.runs.calibrated import policy_of
from npas_ray.runs.conductor_actor import ConductorActor
from npas_ray.runs.directory import RunDirectory
from npas_ray.runs.setting import DENSE, make_space
from npas_ray.runs.warm_start import WarmStart, check_warm_start, gather, settle_warm_start, warm_start_of
from npas_ray.runs.warm_start_fit import fit, why_changed
from npas_ray.runs.warm_start_sources import Found, Source, read_source
from npas_ray.search.policy import Observation, Status
from npas_ray.search.reward import Objective
from npas_ray.space.choices import Architecture
from npas_ray.testing.progress import Said

DEVICE = {
    "serial": "s1",
    "model": "local",
    "target": "x86_64-avx512",
    "emulated": False,
    "details": {"processor": "AMD EPYC", "cores": 4, "allowed_cores": [0, 1]},
}


def dense_ms(latency_ms: float = 0.1, *, key: str = "k" * 16, **device: Any) -> dict[str, Any]:
    return {"artifact_key": key, "device": DEVICE | device, "latency_ms": latency_ms}


def config_with(*sources: dict[str, Any], **sections: Any) -> SearchConfig:
    search = {"warm_start": list(sources)} | sections.pop("search", {})
    return SearchConfig.from_json({"name": "w", "search": search, "training": {"epochs": 2}} | sections)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the digits space that measured the dense network: 38 done (2 epochs), 7 over budget, 3 failed."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("built")
    config = config_with()
    space = make_space(config)
    with Journal.create(path / "journal.sqlite", config=config.to_json()) as journal:
        journal.note(DENSE, {"model": "local", "measurement": dense_ms()})
        for index in range(48):
            architecture = space.sample(rng)
            journal.propose(architecture)
            if index % 16 == 3:
                journal.conclude(architecture.key, status=Status.FAILED, reason="it was poison")
                continue
            latency_ms = float(0.11 - 0.04 * index / 48 if index % 5 == 1 else 0.03 + 0.05 * rng.random())
            is_over = latency_ms > 0.081
            measured = {"latency_ms": latency_ms, "ci_low_ms": 0.99 * latency_ms, "ci_high_ms": 1.01 * latency_ms}
            journal.measured(architecture.key, model="local", measurement=measured)
            if is_over:
                journal.conclude(architecture.key, status=Status.OVER_BUDGET)
                continue
            accuracy = float(0.5 + 3 * latency_ms + 0.1 * rng.random())
            journal.trained(architecture.key, evaluation={"accuracy": accuracy, "seed": 0, "epochs": 2})
            journal.conclude(architecture.key, status=Status.DONE)
    return path


@pytest.fixture
def other(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "other"))


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., RunDirectory]:
    """A new run's directory, whose journal knows the dense network."""

    def make(config: SearchConfig, dense: dict[str, Any] | None = None) -> RunDirectory:
        found = RunDirectory.prepare(tmp_path / "new", config=config.to_json(), resume=False)
        with Journal.open(found.journal) as journal:
            journal.note(DENSE, {"model": "local", "measurement": dense or dense_ms()})
        return found

    return make


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
    found = taken(config_with({"run": str(other)}), other, dense_ms(details=changed))
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


def test_keys_of_a_run(other: Path) -> None:
    with Journal.open(other / "journal.sqlite", read_only=True) as journal:
        some = [candidate for candidate in journal.candidates() if candidate.status is Status.DONE][3:6][::-1]
    config = config_with({"run": str(other), "keys": [candidate.key for candidate in some]})
    found = taken(config, other)
    assert list(found.start_with) == [candidate.architecture for candidate in some]
    assert len(found.prior) == 3
    wrong = some[0].key[:-1] + ("0" if some[0].key[-1] != "0" else "1")
    with pytest.raises(RunError, match=f"has no candidate '{wrong}'; did you mean '{some[0].key}'"):
        taken(config_with({"run": str(other), "keys": [wrong]}), other)


def test_lists_as_reports_export_them(other: Path, tmp_path: Path) -> None:
    from npas_ray.reports import read_run

    paths, data = write_reports(other), read_run(other)
    names = make_space(config_with()).layer_names
    front = [candidate.architecture for candidate in data.front("local")]

    def read(path: Path) -> list[Architecture]:
        return [found.architecture for found in read_source(path, is_run=False, layer_names=names).found]

    assert read(paths.pareto_csv) == front[::-1]  # best first
    assert len(read(paths.candidates_csv)) == 48
    (tmp_path / "summary.json").write_text(json.dumps(data.summary()))
    assert set(read(tmp_path / "summary.json")) == set(front)
    (tmp_path / "list.json").write_text(json.dumps([a.to_json() for a in front]))
    assert read(tmp_path / "list.json") == front
    (tmp_path / "best.json").write_text(json.dumps({"backbone": "digits", "layers": front[0].to_json()}))
    assert read(tmp_path / "best.json") == front[:1]


def test_what_a_list_cannot_mean_is_said(tmp_path: Path) -> None:
    config, path = config_with(), tmp_path / "list.json"
    path.write_text(json.dumps([["3x3"] * 7, ["3x4"] * 7, "3x3", {"architecture": ["skip"] * 6}, 3, None]))
    found = gather(
        config_with({"architectures": str(path)}),
        own_path=tmp_path,
        space=make_space(config),
        objective=Objective(),
        dense={},
    )
    assert len(found.start_with) == 1
    assert not found.prior
    assert found.said[0].startswith(
        f"1 of 6 architectures of {path} fit this space; 1 has 6 layers instead of 7, 4 can"
    )
    assert "first item 2: '3x4' is not a valid Operator" in found.said[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no column 'block0'"),
        (b"\xff\xfe\x00", "is no list of architectures"),
        (b"[1, 2", "is no list of architectures"),
        (b'{"a": 1}', "an object with the keys 'a'"),
        (b"a,b\n1,2\n", "no column 'block0'"),
        (None, "cannot read the list"),
    ],
)
def test_a_list_that_is_none(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "list"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match=said) as caught:
        check_warm_start(
            config_with({"architectures": str(path)}), RunDirectory(tmp_path / "new"), make_space(config_with())
        )
    assert str(path) in str(caught.value)


def test_a_run_that_is_missing_or_damaged(other: Path, tmp_path: Path) -> None:
    def check(path: Path) -> None:
        check_warm_start(config_with({"run": str(path)}), RunDirectory(tmp_path / "n"), make_space(config_with()))

    with pytest.raises(RunError, match=r"there is no run at .*othr; did you mean 'other'"):
        check(other.with_name("othr"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="is not a run"):
        check(tmp_path / "empty")
    journal = other / "journal.sqlite"
    journal.write_bytes(b"SQLite format 3\0" + bytes(4096))
    with pytest.raises(RunError, match=r"the run .*other cannot be read: .*leave it out"):
        check(other)


def test_a_run_keeps_what_it_began_with(other: Path, run: Callable[..., RunDirectory]) -> None:
    config = config_with({"run": str(other)}, search={"policy": "npas"})
    objective = Objective({"local": 0.06}, chance=0.1)
    new, said = run(config), Said()
    settle_warm_start(config, new, make_space(config), objective, said)
    assert said.lines[0] == f"warm start: 45 of 45 candidates of {other} fit this space"
    first = warm_start_of(config, new)
    assert len(first.prior) == 45
    policy = policy_of(config, new, objective)
    assert policy.propose(5) == list(first.start_with)
    shutil.rmtree(other)
    settle_warm_start(config, new, make_space(config), objective, Said())
    assert warm_start_of(config, new) == first == check_warm_start(config, new, make_space(config))
    again = policy_of(config, new, objective)
    again.restore(first.start_with, [])
    assert again.propose(4) == policy.propose(4)


def evaluated(conductor: ConductorActor, count: int) -> list[str]:
    """Keys of the next candidates, each of which is measured, trained and concluded."""
    keys = []
    for _ in range(count):
        issued = conductor.issue()
        assert issued is not None
        keys.append(issued.key)
        share = int(issued.key, 16) % 1000 / 1000
        latency_ms = 0.03 + 0.06 * share
        measured = {"latency_ms": latency_ms, "ci_low_ms": 0.99 * latency_ms, "ci_high_ms": 1.01 * latency_ms}
        conductor.measured(issued.key, "local", measured)
        if latency_ms > 0.06:
            conductor.conclude(issued.key, Status.OVER_BUDGET)
            continue
        conductor.trained(issued.key, {"accuracy": 0.5 + 0.4 * share, "seed": 0, "epochs": 2})
        conductor.conclude(issued.key, Status.DONE)
    return keys


def test_a_killed_run_goes_on_as_it_would_have(other: Path, tmp_path: Path) -> None:
    """Its sources are gone by then."""
    source = {"run": str(other), "start_with": 3}
    config = config_with(source, search={"warm_start": [source], "candidates": 20})
    objective = Objective({"local": 0.06}, chance=0.1)
    runs = []
    for name in ("whole", "killed"):
        run = RunDirectory.prepare(tmp_path / name, config=config.to_json(), resume=False)
        with Journal.open(run.journal) as journal:
            journal.note(DENSE, {"model": "local", "measurement": dense_ms()})
        settle_warm_start(config, run, make_space(config), objective, Said())
        runs.append(run)
    begun = [architecture.key for architecture in warm_start_of(config, runs[0]).start_with]
    whole = ConductorActor(runs[0].path, config, objective)
    keys = evaluated(whole, 20)
    assert keys[:3] == begun
    killed = ConductorActor(runs[1].path, config, objective)
    assert evaluated(killed, 7) == keys[:7]
    killed._held.close()  # as the kernel does it
    shutil.rmtree(other)
    assert evaluated(ConductorActor(runs[1].path, config, objective), 13) == keys[7:]
    assert whole.issue() is None


def test_a_run_may_not_begin_from_itself(other: Path) -> None:
    config = config_with({"run": str(other)})
    with pytest.raises(RunError, match="is this very run"):
        gather(config, own_path=other, space=make_space(config), objective=Objective(), dense=None)


def test_a_damaged_warm_start_is_said(other: Path, run: Callable[..., RunDirectory]) -> None:
    config = config_with({"run": str(other)})
    new = run(config)
    with pytest.raises(RunError, match="lacks the warm start"):
        warm_start_of(config, new)
    with Journal.open(new.journal) as journal:
        journal.note("warm-start", {"prior": 3})
    with pytest.raises(RunError, match="is damaged"):
        warm_start_of(config, new)


def test_it_is_part_of_the_identity() -> None:
    assert config_with({"run": "a"}).digest != config_with().digest != config_with({"run": "b"}).digest
    for wrong in ({}, {"run": "a", "architectures": "b"}, {"architectures": "a", "keys": ["0" * 16]}, {"runs": "a"}):
        with pytest.raises(ConfigError, match=r"search\.warm_start\[0\]"):
            config_with(wrong)


def test_observations_survive_the_journal() -> None:
    architecture = make_space(config_with()).sample(np.random.default_rng(1))
    whole = Observation(architecture, Status.STOPPED, 0.5, {"a": 1.0}, {"a": (0.9, 1.1)}, {0: 0.4, 1: 0.5})
    bare = dataclasses.replace(whole, status=Status.OVER_BUDGET, accuracy=None, rungs={}, latency_ci_ms={})
    start = WarmStart((whole, bare), (architecture,), ("a", "b"))
    assert WarmStart.from_json(json.loads(json.dumps(start.to_json()))) == start


def test_every_search_settles_it_before_its_policy_is_made() -> None:
    """Merges have lost the call before; whole searches that would show it are too slow to run each time."""
    import inspect

    from npas_ray.runs import search_run, staff

    source = inspect.getsource(staff.staff)
    assert 0 < source.index("_objective(") < source.index("settle_warm_start(") < source.index("_conductor(")
    assert "check_warm_start(" in inspect.getsource(search_run.run_search)
