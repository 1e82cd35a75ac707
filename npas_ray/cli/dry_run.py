"""What a search would do, without doing any of it."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from npas_ray.config import AdbDevice, FarmDevice, LocalDevice, SearchConfig, difference
from npas_ray.errors import RunError
from npas_ray.runs.setting import ladder_of
from npas_ray.search.axes import label_of
from npas_ray.space.search_space import SearchSpace


@dataclass(frozen=True)
class Plan:
    """Of a search that could start now."""

    config: SearchConfig
    run_dir: Path
    run_state: str
    layers: int
    space_size: int
    left_out: int = 0  # choices that a calibration found slower than dense
    warm_start: tuple[str, ...] = ()  # what it would begin with, in words

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.config.name,
            "run_dir": str(self.run_dir),
            "run_state": self.run_state,
            "digest": self.config.digest,
            "space": {"layers": self.layers, "size": self.space_size, "left_out": self.left_out},
            "warm_start": list(self.warm_start),
            "config": self.config.to_json(),
        }

    def __str__(self) -> str:
        config = self.config
        objective = config.objective
        budgets = ", ".join(
            [f"{limit:g} ms on {model}" for model, limit in objective.budgets_ms.items()]
            + [f"{share:.0%} of the dense network on {model}" for model, share in objective.budgets_of_dense.items()]
        )
        devices = ", ".join(_device(device) for device in config.devices)
        slower = f" without {self.left_out} choices that are slower than dense" if self.left_out else ""
        rows = {
            "run": f"{self.run_dir} ({self.run_state})",
            "task": f"{config.task.name}, {config.task.train_images} training images",
            "space": f"{config.space.backbone}: {self.layers} layers, {_size(self.space_size)} architectures{slower}",
            "search": f"{config.search.policy}, {config.search.candidates} candidates, seed {config.seed}",
            "objective": _goal(config),
            "budget": budgets or "none",
            "training": f"{_epochs(config)} epochs a candidate, {config.training.final_epochs} for the best one",
            "devices": devices,
            "cluster": f"{config.cluster.address}, {config.cluster.cpus} CPUs",
            "digest": config.digest,
        }
        begins = [f"{'begins' if index == 0 else '':11}{line}" for index, line in enumerate(self.warm_start)]
        return "\n".join([*(f"{name:11}{text}" for name, text in rows.items()), *begins, "Nothing was started."])


def plan(config: SearchConfig, run_dir: Path, *, resume: bool) -> Plan:
    """Checks all that can be checked without starting anything.

    Raises SpaceError (no legal candidate), CalibrationUnusable, ConfigError (settings of the policy, a device's
    precision), RunError (the run directory, what it is to begin with), DamagedJournal (of the run to be resumed).
    """
    from npas_ray.runs.calibrated import check_calibrations
    from npas_ray.runs.devices import settled
    from npas_ray.runs.directory import RunDirectory
    from npas_ray.runs.setting import make_objective, targets_of
    from npas_ray.runs.warm_start import check_warm_start
    from npas_ray.search.registry import make_policy

    config = settled(config)
    targets_of(config)
    space, left_out = check_calibrations(config, RunDirectory(run_dir))
    policy = config.search
    objective = make_objective(
        config, dict.fromkeys(config.models, 1.0)
    )  # what the dense network takes is not known yet
    make_policy(policy.policy, space, objective, seed=config.seed, settings=policy.settings)
    said = check_warm_start(config, RunDirectory(run_dir), space).said
    state = _run_state(config, run_dir, space, resume=resume)
    return Plan(config, run_dir, state, space.layers, space.size, left_out, said)


def _run_state(config: SearchConfig, run_dir: Path, space: SearchSpace, *, resume: bool) -> str:
    """What is in the run directory. Raises RunError if a search could not use it, DamagedJournal as it would."""
    from npas_ray.journal import Journal
    from npas_ray.runs.directory import RunDirectory
    from npas_ray.runs.journal_check import check_journal

    run = RunDirectory(run_dir)
    if not run.journal.is_file():
        if run_dir.exists() and not run_dir.is_dir():
            raise RunError(f"{run_dir} is a file; a run needs a directory")
        return "new"
    if not resume:
        raise RunError(f"{run_dir} holds a run already; continue it with --resume or name another --run-dir")
    with Journal.open(run.journal, read_only=True) as journal:
        changed = difference(SearchConfig.from_json(journal.config, name=str(run.journal)), config)
        if changed:
            raise RunError("\n".join([f"{run_dir} is a run of another configuration:", *changed]))
        known = check_journal(journal, space, config.models)
    concluded = sum(candidate.status is not None for candidate in known)
    return f"to be resumed, {concluded} of {config.search.candidates} candidates concluded"


def _epochs(config: SearchConfig) -> str:
    """2, or with a ladder 0, then 2 for the best 50 % of"""
    rungs = ladder_of(config).rungs
    share = f"{config.training.keep:.0%}".replace("%", " %")
    return f", then the best {share} for ".join(map(str, rungs))


def _goal(config: SearchConfig) -> str:
    """What is looked for, in words."""
    if not config.axes:
        return "the most accurate network within the budgets"
    return f"the front over accuracy, {', '.join(label_of(axis) for axis in config.axes)}"


def _device(device: LocalDevice | AdbDevice | FarmDevice) -> str:
    if isinstance(device, FarmDevice):
        return f"{device.model} (of the farm {device.farm}, {device.target})"
    threads = f", {device.threads} threads" if device.threads > 1 else ""
    if isinstance(device, LocalDevice):
        return f"{device.model} (core {device.cpu}{threads})"
    phones = "all phones" if device.serials is None else f"{len(device.serials)} phones"
    return f"{device.model} ({phones} of {device.server}, {device.target}{threads})"


def _size(count: int) -> str:
    return f"{count:,}" if count < 10**7 else f"{Decimal(count):.2e}"
