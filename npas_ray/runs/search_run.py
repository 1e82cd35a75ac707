"""A whole search: start the laboratory, let Tune and the policy work, ship the best."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from npas_ray.config import SearchConfig, difference
from npas_ray.errors import InfrastructureError, RunError
from npas_ray.journal import Journal
from npas_ray.runs.calibrated import check_calibrations, settle_calibrations
from npas_ray.runs.devices import settled
from npas_ray.runs.directory import RunDirectory
from npas_ray.runs.journal_check import check_journal
from npas_ray.runs.progress import Progress
from npas_ray.runs.ray_session import in_a_line, prepare_ray
from npas_ray.runs.reach import none_feasible
from npas_ray.runs.setting import make_space, targets_of
from npas_ray.runs.tally import Tally
from npas_ray.runs.warm_start import check_warm_start
from npas_ray.space.search_space import SearchSpace


def run_search(config: SearchConfig, run_dir: Path, *, resume: bool, progress: Progress) -> None:
    """Searches until `config.search.candidates` are concluded and ships the best of them.

    Everything acknowledged is in the journal: after any end, however sudden, the same call with `resume` goes on.

    Raises:
        SpaceError: a layer has no legal choice.
        CalibrationUnusable: a calibration that the configuration names is damaged, stale or of something else.
        RunError: the directory cannot be used, or holds a run of another configuration; or what the search is to begin
            with is missing or damaged.
        InfrastructureError: an adb server, Ray, the farm or the trainers broke down; resume later.
        NoFeasibleCandidate: no candidate kept the budgets.
    """
    config = settled(config)
    make_space(config)  # refuses what cannot be searched before anything is made
    targets_of(config)  # and devices that cannot compute as they are asked to
    space, _ = check_calibrations(config, RunDirectory(run_dir))
    check_warm_start(config, RunDirectory(run_dir), space)
    run = RunDirectory.prepare(run_dir, config=config.to_json(), resume=resume)
    with run.locked():
        concluded = _take_up(run, config, space)
        settle_calibrations(config, run, progress)
        if concluded < config.search.candidates or not run.is_shipped:
            _search_and_ship(config, run, progress)


def _take_up(run: RunDirectory, config: SearchConfig, space: SearchSpace) -> int:
    """Checks that the journal belongs to this search and is whole, notes the session; how many are concluded."""
    with run.writing(), Journal.open(run.journal) as journal:
        differences = difference(SearchConfig.from_json(journal.config, name=str(run.journal)), config)
        if differences:
            raise RunError(
                f"{run.path} is a run of another configuration ({'; '.join(differences)});"
                " resume it with its own, or name another --run-dir"
            )
        candidates = check_journal(journal, space, config.models)
        journal.note("session", {"config": config.to_json(), "pid": os.getpid()})
        return sum(candidate.status is not None for candidate in candidates)


def _search_and_ship(config: SearchConfig, run: RunDirectory, progress: Progress) -> None:
    prepare_ray()
    import ray
    from ray.exceptions import RayError

    from npas_ray.runs.shipping import ship
    from npas_ray.runs.staff import staff

    try:
        with staff(config, run, progress) as (lab, conductor):
            known = ray.get(conductor.candidates.remote())
            tally = Tally.of(known, lab.objective, wanted=config.search.candidates)
            if tally.done < tally.wanted:
                progress.phase("searching")
                progress.update(*tally.counts, **tally.details)
                _tune(run, lab=lab, conductor=conductor, on_result=_teller(tally, progress))
            if not tally.feasible and not tally.stopped:
                raise none_feasible(ray.get(conductor.candidates.remote()), lab.objective)
            ship(config, run, lab=lab, conductor=conductor, progress=progress)
    except RayError as error:
        raise InfrastructureError(f"Ray failed: {in_a_line(error)}") from error


def _teller(tally: Tally, progress: Progress) -> Callable[[dict[str, Any]], None]:
    def tell(result: dict[str, Any]) -> None:
        tally.add(result)
        progress.update(*tally.counts, **tally.details)

    return tell


def _tune(run: RunDirectory, *, lab: Any, conductor: Any, on_result: Callable[[dict[str, Any]], None]) -> None:
    """One Tune experiment for the candidates that are missing. Raises InfrastructureError."""
    import ray
    from ray import tune

    from npas_ray.runs.trial import TRIAL_CPUS, evaluate_trial
    from npas_ray.search.tune_adapter import ConductedSearcher

    live = lab.trials_at_once
    searcher = ConductedSearcher(conductor, max_live=live, metric="reward", on_result=on_result)
    trainable = tune.with_parameters(evaluate_trial, laboratory=lab, conductor=conductor)
    session = 1 + len(list(run.tune.glob("session-*"))) if run.tune.is_dir() else 1
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": TRIAL_CPUS}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=-1,  # the searcher says when it is finished
            max_concurrent_trials=live,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: f"{trial.config['ordinal']:04d}-{trial.config['key']}",
        ),
        run_config=tune.RunConfig(
            name=f"session-{session:03d}",
            storage_path=str(run.tune.resolve()),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=3),
        ),
    )
    tuner.fit()
    if searcher.broken:
        raise InfrastructureError(f"the search stopped: candidate after candidate broke down; {searcher.broken}")
    left = cast("list[tuple[str, str]]", ray.get(conductor.unexplained.remote()))
    if left:
        key, reason = left[0]
        raise InfrastructureError(f"{len(left)} candidates could not be evaluated, first {key}: {reason}")
