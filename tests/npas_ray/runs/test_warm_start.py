"""What a run began with stays with it, whatever becomes of its sources."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from npas_ray.errors import ConfigError, RunError
from npas_ray.journal import Journal
from npas_ray.runs.calibrated import policy_of
from npas_ray.runs.conductor_actor import ConductorActor
from npas_ray.runs.directory import RunDirectory
from npas_ray.runs.setting import DENSE, make_space
from npas_ray.runs.warm_start import WarmStart, check_warm_start, gather, settle_warm_start, warm_start_of
from npas_ray.search.policy import Observation, Status
from npas_ray.search.reward import Objective
from npas_ray.testing.earlier_runs import config_with, dense_ms
from npas_ray.testing.progress import Said


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
