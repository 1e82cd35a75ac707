"""What calibrations change in a run: a smaller space, a policy that knows latencies. A run keeps its own copies.

A search must be the same after a resume, whatever was calibrated since: what is found at its first start is copied into
the run's directory, and only the copies count from then on.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from device_farm.calibration.file import Calibration, read_calibration, slower, write_calibration
from device_farm.errors import CalibrationError
from npas_ray.calibration.store import calibrations_of, predictors
from npas_ray.config import SearchConfig
from npas_ray.errors import InfrastructureError, RunError
from npas_ray.runs.directory import RunDirectory
from npas_ray.runs.progress import Progress
from npas_ray.runs.setting import cache_dir, make_space
from npas_ray.runs.warm_start import warm_start_of
from npas_ray.search.registry import make_policy, settings_of
from npas_ray.search.replayable import ReplayablePolicy
from npas_ray.search.reward import Objective
from npas_ray.space.breakeven import LeftOut, leave_out
from npas_ray.space.choices import Architecture
from npas_ray.space.search_space import SearchSpace

BREAKEVEN, PREDICTOR = "breakeven", "predictor"
Calibrations = Mapping[str, Calibration]  # by device model


def check_calibrations(config: SearchConfig, run: RunDirectory) -> tuple[SearchSpace, int]:
    """The space as it would be searched, and how many choices are left out of it. Changes nothing.

    Raises CalibrationUnusable, RunError.
    """
    found = {purpose: _taken_up(run, purpose) or _found(config, purpose) for purpose in (BREAKEVEN, PREDICTOR)}
    space, left_out = _space(config, found[BREAKEVEN])
    return space, len(left_out.points)


def settle_calibrations(config: SearchConfig, run: RunDirectory, progress: Progress) -> None:
    """Copies what the configuration asks for into the run, once, and says what follows from it.

    Raises CalibrationUnusable, InfrastructureError.
    """
    for purpose in (BREAKEVEN, PREDICTOR):
        folder = run.calibrations / purpose
        if _wanted(config, purpose) is None or folder.is_dir():
            continue
        found = _found(config, purpose)
        for model in config.models:
            if model not in found:
                progress.log(
                    f"{purpose}: there is no calibration of {model} for this compiler, target and space;"
                    f" going on without. `npas calibrate` makes one"
                )
        _copy(found, folder)
        if purpose == BREAKEVEN and _complete(config, found):
            for line in str(_space(config, found)[1]).splitlines():
                progress.log(line)


def policy_of(config: SearchConfig, run: RunDirectory, objective: Objective) -> ReplayablePolicy:
    """The policy of a run, on its space, with its predictor and what it begins with, ready to be restored.

    Raises SpaceError, ConfigError, RunError, InvalidObservation.
    """
    return warm_start_of(config, run).apply(_cold_policy(config, run, objective))


def _cold_policy(config: SearchConfig, run: RunDirectory, objective: Objective) -> ReplayablePolicy:
    space, _ = _space(config, _taken_up(run, BREAKEVEN) or {})
    settings = dict(config.search.settings)
    known = _taken_up(run, PREDICTOR) or {}
    if not known or not _complete(config, known):
        return make_policy(config.search.policy, space, objective, seed=config.seed, settings=settings)
    latencies = predictors(config, known)
    if "latency_predictor" in settings_of(config.search.policy):
        settings["latency_predictor"] = latencies
    policy = make_policy(config.search.policy, space, objective, seed=config.seed, settings=settings)
    if config.search.skip_over_budget:

        def surely_over(architectures: Sequence[Architecture]) -> Sequence[bool]:
            return [bool(over) for over in latencies.surely_over(architectures, objective.budgets_ms)]

        policy.veto = surely_over
    return policy


def _wanted(config: SearchConfig, purpose: str) -> str | None:
    return config.space.breakeven if purpose == BREAKEVEN else config.search.predictor


def _found(config: SearchConfig, purpose: str) -> dict[str, Calibration]:
    wanted = _wanted(config, purpose)
    return {} if wanted is None else calibrations_of(config, wanted, folder=cache_dir() / "calibrations")


def _complete(config: SearchConfig, calibrations: Calibrations) -> bool:
    return all(model in calibrations for model in config.models)


def _space(config: SearchConfig, calibrations: Calibrations) -> tuple[SearchSpace, LeftOut]:
    """A point is left out if it is slower on every device: one that nobody calibrated may be fast on it."""
    points = slower(list(calibrations.values())) if _complete(config, calibrations) else {}
    return leave_out(make_space(config), points)


def _copy(calibrations: Calibrations, folder: Path) -> None:
    """The folder with all of them, or no folder."""
    scratch = folder.with_name(f".{folder.name}.new")
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        for model, calibration in calibrations.items():
            write_calibration(scratch / f"{model}.json", calibration)
        scratch.rename(folder)
    except OSError as error:
        raise InfrastructureError(f"cannot keep the calibration in {folder}: {error.strerror}") from error


def _taken_up(run: RunDirectory, purpose: str) -> dict[str, Calibration] | None:
    """The run's own copies; None before it has settled. Raises RunError."""
    folder = run.calibrations / purpose
    if not folder.is_dir():
        return None
    try:
        return {path.stem: read_calibration(path) for path in sorted(folder.glob("*.json"))}
    except CalibrationError as error:
        raise RunError(f"a calibration of the run is damaged: {error}") from error
