from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from device_farm.calibration.breakeven import Point, Verdict
from device_farm.calibration.file import Calibration, Network, write_calibration
from device_farm.calibration.predictor import Observation
from device_farm.compiler import host_target
from npas_ray.calibration.design import design
from npas_ray.calibration.pieces import Pieces
from npas_ray.calibration.store import default_path, identity_of
from npas_ray.config import SearchConfig
from npas_ray.errors import CalibrationUnusable, RunError
from npas_ray.runs.calibrated import check_calibrations, policy_of, settle_calibrations
from npas_ray.runs.directory import RunDirectory
from npas_ray.runs.setting import backbone_of, block_height_of, make_space
from npas_ray.search.reward import Objective
from npas_ray.space.choices import Architecture
from npas_ray.testing.progress import Said

SLOW = "3x3/block-punched@2"
SPACE = {"operators": ["3x3", "skip"], "schemes": ["block-punched"], "rates": [1, 2, 5]}


def config_with(**sections: dict[str, object]) -> SearchConfig:
    space = SPACE | sections.pop("space", {})
    return SearchConfig.from_json({"name": "c", "space": space, **sections})


def latency_ms(config: SearchConfig, architecture: Architecture) -> float:
    """Kept work, at a million multiply-adds in 20 us."""
    pieces = Pieces(backbone_of(config), host_target(), block_height_of(config))
    return sum(1e-4 + 2e-8 * step.kept_macs for step in pieces.candidate(architecture))


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    """By it, block0 and block1 are slower at rate 2."""
    config = config_with()
    pieces = Pieces(backbone_of(config), host_target(), block_height_of(config))
    networks = []
    for architecture in design(make_space(config), 24, seed=0):
        steps = tuple(pieces.candidate(architecture))
        times = tuple(1e-4 + 2e-8 * step.kept_macs for step in steps)
        observation = Observation(steps, times, latency_ms(config, architecture), 0.005)
        networks.append(Network(tuple(architecture.to_json()), observation))
    points = tuple(Point(f"block{i}", SLOW, "3x3", 2.0, 1.0, 1.0, 0.1, 3, Verdict.SLOWER) for i in (0, 1))
    return Calibration(identity_of(config, "local"), tuple(networks), points, (0.1, 0.5, 1.0))


@pytest.fixture
def stored(calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The calibration in its default place."""
    monkeypatch.setenv("NPAS_CACHE_DIR", str(tmp_path / "cache"))
    path = default_path(tmp_path / "cache" / "calibrations", calibration.identity)
    write_calibration(path, calibration)
    return path


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    (tmp_path / "run").mkdir()
    return RunDirectory(tmp_path / "run")


@pytest.mark.parametrize("named", [False, True])
def test_a_search_leaves_out_what_is_slower(stored: Path, run: RunDirectory, named: bool) -> None:
    config = config_with(space={"breakeven": str(stored) if named else "auto"})
    space, left_out = check_calibrations(config, run)
    assert left_out == 2
    assert SLOW not in map(str, space.choices(0))
    said = Said()
    settle_calibrations(config, run, said)
    assert said.lines[0].startswith("2 of ")
    assert sum(SLOW in line for line in said.lines) == 2
    policy = policy_of(config, run, Objective())
    assert policy.space.size == space.size < make_space(config).size


def test_nothing_changes_unless_it_is_asked_for(stored: Path, run: RunDirectory) -> None:
    config = config_with()
    assert check_calibrations(config, run)[1] == 0
    said = Said()
    settle_calibrations(config, run, said)
    assert not said.lines
    assert not run.calibrations.exists()
    policy = policy_of(config, run, Objective({"local": 1.0}))
    assert policy.space.size == make_space(config).size
    assert policy.veto is None


def test_a_run_keeps_what_it_began_with(stored: Path, run: RunDirectory) -> None:
    config = config_with(space={"breakeven": "auto"})
    settle_calibrations(config, run, Said())
    size = policy_of(config, run, Objective()).space.size
    stored.unlink()
    settle_calibrations(config, run, Said())
    assert policy_of(config, run, Objective()).space.size == size
    assert check_calibrations(config, run)[1] == 2


def test_a_run_that_began_without_goes_on_without(stored: Path, run: RunDirectory) -> None:
    config = config_with(space={"breakeven": "auto"})
    content = stored.read_bytes()
    stored.unlink()
    said = Said()
    settle_calibrations(config, run, said)
    assert "no calibration of local" in said.lines[0]
    assert "npas calibrate" in said.lines[0]
    stored.write_bytes(content)
    settle_calibrations(config, run, Said())
    assert policy_of(config, run, Objective()).space.size == make_space(config).size


def test_a_damaged_copy_is_said(stored: Path, run: RunDirectory) -> None:
    config = config_with(space={"breakeven": "auto"})
    settle_calibrations(config, run, Said())
    (run.calibrations / "breakeven" / "local.json").write_text("{")
    with pytest.raises(RunError, match="of the run is damaged"):
        policy_of(config, run, Objective())


def test_a_named_file_that_is_stale_stops_the_search(stored: Path, run: RunDirectory) -> None:
    from device_farm.calibration.file import read_calibration

    old = read_calibration(stored)
    write_calibration(stored, replace(old, identity=replace(old.identity, compiler="older")))
    config = config_with(space={"breakeven": str(stored)})
    with pytest.raises(CalibrationUnusable, match=r"compiler 'older' instead of.*npas calibrate"):
        check_calibrations(config, run)
    assert check_calibrations(config_with(space={"breakeven": "auto"}), run)[1] == 0


@pytest.mark.parametrize("name", ["npas", "random", "local", "paper"])
def test_what_is_surely_over_its_budget_is_not_proposed(stored: Path, run: RunDirectory, name: str) -> None:
    config = config_with(search={"policy": name, "predictor": "auto", "skip_over_budget": True})
    settle_calibrations(config, run, Said())
    space = make_space(config)
    budget = 0.5 * latency_ms(config, space.parse(["3x3"] * 7))
    policy = policy_of(config, run, Objective({"local": budget}))
    proposed = policy.propose(30)
    assert len(set(proposed)) == 30
    assert all(latency_ms(config, architecture) < 1.1 * budget for architecture in proposed)
    again = policy_of(config, run, Objective({"local": budget}))
    again.restore(proposed, [])
    assert again.propose(5) == policy.propose(5)


def test_a_veto_never_starves_a_search(stored: Path, run: RunDirectory) -> None:
    config = config_with(search={"policy": "random", "predictor": "auto", "skip_over_budget": True})
    settle_calibrations(config, run, Said())
    policy = policy_of(config, run, Objective({"local": 1e-6}))
    assert len(set(policy.propose(5))) == 5


def test_without_the_switch_a_predictor_forbids_nothing(stored: Path, run: RunDirectory) -> None:
    config = config_with(search={"policy": "random", "predictor": "auto"})
    settle_calibrations(config, run, Said())
    objective = Objective({"local": 1e-6})
    blind = policy_of(config_with(search={"policy": "random"}), run, objective)
    assert policy_of(config, run, objective).propose(10) == blind.propose(10)
