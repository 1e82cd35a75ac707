"""Whole searches by somebody else's searcher, as a user starts them and goes on with them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from npas_ray.journal import Journal
from npas_ray.search.policy import Status

ROOT = Path(__file__).parents[3]
CONFIG = """
name: guest
seed: 3
task: {{train_images: 500}}
space: {{operators: [3x3, 1x1, skip], schemes: [kernel-block, filter], rates: [1, 3, 7]}}
search: {{policy: tune, candidates: 4, settings: {{searcher: "{searcher}"}}}}
training: {{epochs: 0, workers: 1, final_epochs: 1}}
measurement: {{warmup_s: 0.01, min_time_s: 0.05, max_relative_ci: 0.5}}
"""
#: a user's own: one layer after another becomes what it is not, from the first choices on; it writes what it is told
OWN = """
from pathlib import Path
from ray.tune.search import Searcher

class Walk(Searcher):
    def __init__(self, metric="reward", mode="max", points_to_evaluate=None):
        super().__init__(metric=metric, mode=mode)
        self.queue, self.step = list(points_to_evaluate or []), 0

    def set_search_properties(self, metric, mode, config, **_):
        self.space = config
        return True

    def suggest(self, trial_id):
        if self.queue:
            return self.queue.pop(0)
        self.step += 1
        names = sorted(self.space)
        return {name: self.space[name].categories[(self.step >> place) % 2] for place, name in enumerate(names)}

    def on_trial_complete(self, trial_id, result=None, error=False):
        with Path(__file__).with_name("told.txt").open("a") as file:
            file.write(f"{trial_id} {'failed' if error else result['reward']}\\n")
"""


def npas(*arguments: str, also: Path) -> None:
    """The command, which has to succeed; `also` is a folder of modules of the user's."""
    done = subprocess.run(
        [sys.executable, "-m", "npas_ray", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(also), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def done(run_dir: Path) -> list[str]:
    """Keys of the candidates in their order; all were trained."""
    with Journal.open(run_dir / "journal.sqlite", read_only=True) as journal:
        candidates = journal.candidates()
    assert {candidate.status for candidate in candidates} == {Status.DONE}
    return [candidate.key for candidate in candidates]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_optuna_search_searches_and_ships(tmp_path: Path) -> None:
    config, run_dir = tmp_path / "guest.yaml", tmp_path / "guest"
    config.write_text(CONFIG.format(searcher="ray.tune.search.optuna:OptunaSearch"))
    npas("search", str(config), "--run-dir", str(run_dir), also=tmp_path)
    assert len(set(done(run_dir))) == 4
    assert (run_dir / "best" / "summary.json").is_file()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_users_own_searcher_goes_on_with_what_is_known(tmp_path: Path) -> None:
    config, run_dir = tmp_path / "guest.yaml", tmp_path / "guest"
    config.write_text(CONFIG.format(searcher="own_searchers:Walk"))
    (tmp_path / "own_searchers.py").write_text(OWN)
    npas("search", str(config), "--run-dir", str(run_dir), also=tmp_path)
    first = done(run_dir)
    assert len(set(first)) == 4
    npas("search", str(config), "--run-dir", str(run_dir), "--resume", "--set", "search.candidates=6", also=tmp_path)
    assert done(run_dir)[:4] == first
    assert len(set(done(run_dir))) == 6
    # 4 results, then the same again to the searcher of the second session, and 2 more
    told = [line.split()[1] for line in (tmp_path / "told.txt").read_text().splitlines()]
    assert told[4:8] == told[:4]
    assert len(told) >= 10
