"""`npas search` around the search itself, which is stood in for by one that leaves a run of invented results."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from device_farm.errors import DeviceGone, UnsupportedOperator
from npas_ray.cli import main
from npas_ray.config import SearchConfig, load_config
from npas_ray.errors import InfrastructureError, NoFeasibleCandidate

DEMO = Path(__file__).parents[3] / "examples" / "demo.yaml"
StandIn = Callable[[Callable[..., object]], None]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StandIn:
    """`stand_in(function)`: the function is called as run_search."""
    monkeypatch.chdir(tmp_path)

    def put(function: Callable[..., object]) -> None:
        monkeypatch.setitem(sys.modules, "npas_ray.runs.search_run", SimpleNamespace(run_search=function))

    return put


def test_a_search_ends_with_tables_and_a_page(
    stand_in: StandIn, make_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, Any] = {}

    def search(config: SearchConfig, run_dir: Path, **options: Any) -> None:
        asked.update(options, config=config, run_dir=run_dir)
        options["progress"].update(1, 48, over_budget=0, failed=0, best="72.2 % at 0.04 ms")
        make_run(str(run_dir), candidates=48)

    stand_in(search)
    assert main(["search", str(DEMO), "--set", "training.epochs=1"]) == 0
    assert asked["config"] == load_config(DEMO, ["training.epochs=1"])
    assert (asked["run_dir"], asked["resume"]) == (Path("runs/digits-demo"), False)
    out, err = capsys.readouterr()
    assert "Pareto front on local, budget 0.08 ms" in out
    assert "report: runs/digits-demo/report.html" in out
    assert "1/48 candidates, best 72.2 % at 0.04 ms" in err
    assert {path.name for path in (tmp_path / "runs/digits-demo").iterdir()} >= {
        "candidates.csv",
        "pareto.csv",
        "report.html",
    }


def test_json_is_alone_on_stdout(
    stand_in: StandIn, make_run: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(lambda config, run_dir, **_: make_run(str(run_dir), candidates=9, wanted=9))
    assert main(["search", str(DEMO), "--run-dir", "here", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["state"], data["concluded"], data["reports"]["html"]) == ("finished", 9, "here/report.html")
    assert data["best"]["accuracy"] == max(member["accuracy"] for member in data["front"]["local"])


def test_nothing_feasible_is_3_and_has_a_report(
    stand_in: StandIn, make_run: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    def search(config: SearchConfig, run_dir: Path, **_: Any) -> None:
        make_run(str(run_dir), budget_ms=0.001)
        raise NoFeasibleCandidate("no candidate within 0.001 ms on local")

    stand_in(search)
    assert main(["search", str(DEMO), "--run-dir", "here"]) == 3
    out, err = capsys.readouterr()
    assert "report: here/report.html" in out
    assert err.splitlines()[-1] == "npas: error: no candidate within 0.001 ms on local"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InfrastructureError("Ray is gone"), 4, "npas: error: Ray is gone"),
        (DeviceGone("local"), 4, "npas: error: DeviceGone: local"),
        (UnsupportedOperator("block0: erf"), 2, "npas: error: UnsupportedOperator: block0: erf"),
        (KeyboardInterrupt(), 130, "npas: interrupted"),
    ],
)
def test_what_goes_wrong_has_its_exit_code(
    stand_in: StandIn,
    make_run: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    line: str,
) -> None:
    def search(config: SearchConfig, run_dir: Path, **_: Any) -> None:
        make_run(str(run_dir), candidates=5)
        raise error

    stand_in(search)
    assert main(["search", str(DEMO), "--run-dir", "a run", "--set", "seed=3"]) == code
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == line
    hint = f"continue with: npas search {DEMO} --run-dir 'a run' --set seed=3 --resume"
    assert hint in said[-2]


def test_unfinished_runs_are_reported_too(stand_in: StandIn, make_run: Callable[..., Path]) -> None:
    def search(config: SearchConfig, run_dir: Path, **_: Any) -> None:
        make_run(str(run_dir), candidates=5)
        raise KeyboardInterrupt

    stand_in(search)
    assert main(["search", str(DEMO), "--run-dir", "here"]) == 130
    assert Path("here/report.html").is_file()


def test_interrupted_before_there_was_a_run(stand_in: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    def search(config: SearchConfig, run_dir: Path, **_: Any) -> None:
        raise KeyboardInterrupt

    stand_in(search)
    assert main(["search", str(DEMO)]) == 130
    assert capsys.readouterr().err == "npas: interrupted\n"


def test_a_defect_is_one_line_and_a_file(
    stand_in: StandIn, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def search(config: SearchConfig, run_dir: Path, **_: Any) -> None:
        raise KeyError("oops\nwith a second line")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stand_in(search)
    assert main(["search", str(DEMO)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("npas: error: unexpected KeyError: ")
    [saved] = tmp_path.glob("npas-*.traceback.txt")
    assert str(saved) in line
    assert "Traceback (most recent call last)" in saved.read_text()

    monkeypatch.setenv("NPAS_DEBUG", "1")
    assert main(["search", str(DEMO)]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_dry_run_starts_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["search", str(DEMO), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "npas, 42 candidates, seed 0" in out
    assert "50% of the dense network on local" in out
    assert main(["search", str(DEMO), "--dry-run", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["digest"] == load_config(DEMO).digest
    assert data["space"]["layers"] == 7
    assert list(tmp_path.iterdir()) == []


def test_dry_run_sees_whether_a_run_can_be_resumed(
    make_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_config(DEMO)
    run_dir = str(make_run(candidates=5, config=config.to_json()))
    dry = ["search", str(DEMO), "--run-dir", run_dir, "--dry-run"]
    assert main(dry) == 2
    assert "continue it with --resume" in capsys.readouterr().err
    assert main([*dry, "--resume", "--set", "search.candidates=100"]) == 0
    assert "5 of 100 candidates concluded" in capsys.readouterr().out
    assert main([*dry, "--resume", "--set", "seed=1", "--set", "space.rates=[1, 2]"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"npas: error: {run_dir} is a run of another configuration:",
        "npas: error: seed: 0 -> 1",
        "npas: error: space.rates: [1.0, 2.0, 2.5, 3.0, 5.0, 7.0, 10.0] -> [1.0, 2.0]",
    ]
