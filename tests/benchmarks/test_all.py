from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import all as driver


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of benchmarks: one writes its result, one fails, one takes too long."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "good.py").write_text(
        "import sys, pathlib\npathlib.Path(sys.argv[2]).write_text('quick' if '--quick' in sys.argv else 'full')\n"
    )
    (folder / "bad.py").write_text("raise SystemExit(1)\n")
    (folder / "long.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(driver, "HERE", folder)
    return folder


def test_scripts_run_in_order_and_every_outcome_is_told(scripts: Path, tmp_path: Path) -> None:
    outcomes = driver.run_all(["good", "absent", "bad"], quick=True, limit_s=60, results=tmp_path)
    assert [(outcome.name, outcome.failed) for outcome in outcomes] == [
        ("good", False),
        ("absent", False),
        ("bad", True),
    ]
    assert "no such benchmark" in str(outcomes[1])
    assert "exit status 1" in str(outcomes[2])
    assert (tmp_path / "good.json").read_text() == "quick"


def test_the_limit_ends_what_runs_and_starts_nothing_after_it(scripts: Path, tmp_path: Path) -> None:
    outcomes = driver.run_all(["long", "good"], quick=False, limit_s=0.5, results=tmp_path)
    assert [outcome.words for outcome in outcomes] == ["ended: the time is up", "not started: the time is up"]
    assert outcomes[0].seconds < 30
    assert not (tmp_path / "good.json").exists()


def test_the_driver_says_what_it_can_run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["all", "--only", "unknown"])
    with pytest.raises(SystemExit):
        driver.main()
    assert "networks" in capsys.readouterr().err
