"""A whole search: start the laboratory, let Tune and the policy work, ship the best."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from npas_ray.config import SearchConfig, difference
from npas_ray.errors import InfrastructureError, RunError
from npas_ray.journal import Journal
from npas_ray.reports import ReportPaths, write_reports
from npas_ray.runs.directory import RunDirectory
from npas_ray.runs.progress import Progress, Tally
from npas_ray.search.reward import Objective
from npas_ray.space.search_space import SearchSpace

# how long a resumed run waits for the processes of a killed one to be gone
TAKEOVER_S = 60.0


@dataclass(frozen=True)
class SearchOutcome:
    """What a search that came to its end left behind."""

    run: RunDirectory
    candidates: int
    done: int
    over_budget: int
    failed: int
    best: dict[str, Any] | None  # best/summary.json; None if nothing was within the budgets
    reports: ReportPaths


def run_search(config: SearchConfig, run_dir: Path, *, resume: bool, progress: Progress) -> SearchOutcome:
    """Searches until `config.search.candidates` are concluded, ships the best, writes the reports.

    Everything acknowledged is in the journal: after any end, however sudden, the same call with `resume` goes on.

    Raises:
        RunError: the directory cannot be used, or holds a run of another configuration.
        InfrastructureError: Ray, the farm or the trainers broke down; resume later.
        NoFeasibleCandidate: no candidate kept the budgets (the reports are written all the same).
    """
    space = config.make_space()
    run = RunDirectory.prepare(run_dir, config=config.identity(), resume=resume)
    with run.locked():
        with Journal.open(run.journal) as journal:
            _require_same_search(config, journal, run)
        config.write(run.config)
        with _search(config, space, run, progress):
            pass
    raise NotImplementedError
