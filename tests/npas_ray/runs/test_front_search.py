"""Whole searches in mode front, and under a budget that nothing can keep, as a user starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from npas_ray.journal import Journal
from npas_ray.reports import read_run

ROOT = Path(__file__).parents[3]
CONFIG = """
name: front
seed: 3
task: {train_images: 500}
space: {operators: [3x3, 1x1, skip], schemes: [kernel-block, filter], rates: [1, 3, 7]}
search: {candidates: 9}
training: {epochs: 0, workers: 1, final_epochs: 1}
measurement: {warmup_s: 0.01, min_time_s: 0.05, max_relative_ci: 0.5}
"""


def npas(*arguments: str, timeout_s: float = 500) -> tuple[int, str, str]:
    """Exit code, output and errors of the command."""
    done = subprocess.run(
        [sys.executable, "-m", "npas_ray", *arguments],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_front_is_searched_shown_and_shipped_from(tmp_path: Path) -> None:
    config, run_dir = tmp_path / "front.yaml", tmp_path / "front"
    config.write_text(f"{CONFIG}objective: {{mode: front, axes: [latency, size, energy]}}\n")
    code, out, err = npas("search", str(config), "--run-dir", str(run_dir))
    assert code == 0, err[-3000:]
    assert "Pareto front over accuracy, latency on local, size of the weights, energy proxy" in out

    data = read_run(run_dir)
    whole = data.whole_front
    assert whole is not None
    assert len(data.done) == 9
    assert 0 < whole.hypervolume < 1
    assert all(len(member.evaluations) >= 2 for member in whole.members), "a member was never evaluated again"
    summary = json.loads((run_dir / "best" / "summary.json").read_text())
    assert data.best is not None
    assert summary["key"] == data.best.key
    assert f"hypervolume {whole.hypervolume:.4f}" in out
    weights = next((run_dir / "best").glob("*/network")).stat().st_size
    assert weights > (whole.cost(data.best, "size") or 0)  # the executable carries them

    other = next(c for c in data.done if c.key != data.best.key)
    code, out, err = npas("ship", str(run_dir), "--candidate", str(other.ordinal), "--epochs", "0")
    assert code == 0, err[-3000:]
    assert f"shipped: candidate #{other.ordinal} after 0 epochs" in out
    assert json.loads((run_dir / "best" / "summary.json").read_text())["key"] == other.key
    assert npas("verify", str(run_dir))[0] == 0
    assert npas("ship", str(run_dir), "--candidate", "99")[0] == 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_budget_that_nothing_can_keep_ends_the_search_before_it_begins(tmp_path: Path) -> None:
    config, run_dir = tmp_path / "tight.yaml", tmp_path / "tight"
    config.write_text(f"{CONFIG}objective: {{budgets_ms: {{local: 0.000001}}}}\n")
    code, _, err = npas("search", str(config), "--run-dir", str(run_dir))
    assert code == 3, err[-3000:]
    assert "no network of this space keeps 1e-06 ms on local: even without any of its blocks it takes" in err
    with Journal.open(run_dir / "journal.sqlite", read_only=True) as journal:
        assert journal.candidates() == []
    assert (run_dir / "report.html").is_file()
