"""From a configuration to the pure objects that it describes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from device_farm.compiler import TARGETS, Target, host_target
from device_farm.compiler.sparsity import TapUnit
from device_farm.errors import CompileError
from npas_ray.config import LocalDevice, SearchConfig
from npas_ray.errors import ConfigError
from npas_ray.journal import Journal
from npas_ray.networks.backbone import BACKBONES, Backbone
from npas_ray.networks.costs import NetworkCosts
from npas_ray.networks.operators import dense_architecture
from npas_ray.search.axes import ENERGY, SIZE, latency_on
from npas_ray.search.ladder import Ladder
from npas_ray.search.reward import Mode, Objective
from npas_ray.space.search_space import SearchSpace

# the journal's notes with a measurement of the dense network and of the smallest, and with what a front is drawn over
DENSE, SMALLEST, FRONT = "dense", "smallest", "front"


def cache_dir() -> Path:
    """Where compiled kernels are kept between runs: $NPAS_CACHE_DIR, or npas in the user's cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("NPAS_CACHE_DIR") or Path(home) / "npas")


def dense_latencies(journal: Journal) -> dict[str, float]:
    """What the dense network takes on each device model, in ms, as far as it was measured."""
    return {data["model"]: float(data["measurement"]["latency_ms"]) for _, _, _, data in journal.events(DENSE)}


def backbone_of(config: SearchConfig) -> Backbone:
    """The frame that the search fills."""
    return BACKBONES[config.space.backbone]


def task_of(config: SearchConfig) -> dict[str, int]:
    """The arguments of digits_task."""
    return {"seed": config.seed, "train_images": config.task.train_images}


def ladder_of(config: SearchConfig) -> Ladder:
    """The trainings that a candidate goes through, the last one for `training.epochs`."""
    return Ladder((*config.training.ladder, config.training.epochs), config.training.keep)


def make_space(config: SearchConfig) -> SearchSpace:
    """The search space, before a calibration leaves anything out. Raises SpaceError: a layer has no legal choice."""
    return SearchSpace.from_spec(backbone_of(config), config.space.spec())


def make_objective(config: SearchConfig, dense_ms: Mapping[str, float]) -> Objective:
    """What is maximised; guessing is right once in as many times as there are classes.

    `dense_ms` is what the dense network takes on each device model: budgets can be relative to it, and a front ends
    where its costs are, unless a budget ends it before or behind. Raises ConfigError as `targets_of`.
    """
    objective = config.objective
    budgets_ms = dict(objective.budgets_ms)
    budgets_ms |= {model: share * dense_ms[model] for model, share in objective.budgets_of_dense.items()}
    alpha, chance = objective.alpha, 1 / backbone_of(config).classes
    if objective.mode == "best":
        return Objective(budgets_ms, alpha=alpha, chance=chance, certainty=objective.certainty)
    costs = costs_of(config) if {SIZE, ENERGY} & set(config.axes) else None
    ends = {latency_on(model): latency_ms for model, latency_ms in dense_ms.items()}
    ends |= {latency_on(model): budget_ms for model, budget_ms in budgets_ms.items()}
    ends |= costs(dense_architecture(backbone_of(config))) if costs is not None else {}
    return Objective(
        budgets_ms,
        alpha=alpha,
        chance=chance,
        mode=Mode.FRONT,
        axes=config.axes,
        reference={axis: ends[axis] for axis in config.axes},
        costs=costs,
        certainty=objective.certainty,
    )


def costs_of(config: SearchConfig) -> NetworkCosts:
    """Size and energy proxy of the candidates, on the targets of the devices. Raises ConfigError as `targets_of`."""
    return NetworkCosts(
        backbone_of(config),
        block_height=block_height_of(config),
        tap_unit=tap_unit_of(config),
        targets=tuple(dict.fromkeys(targets_of(config))),
    )


def front_note(config: SearchConfig, objective: Objective) -> dict[str, Any]:
    """What the journal keeps of a front: its axes and their ends, and what size and energy depend on."""
    return {
        "axes": list(objective.axes),
        "reference": {axis: objective.reference_of(axis) for axis in objective.axes},
        "block_height": block_height_of(config),
        "tap_unit": str(tap_unit_of(config)),
        "targets": list(dict.fromkeys(target.name for target in targets_of(config))),
    }


def block_height_of(config: SearchConfig) -> int:
    """Filters that share a tap list: those of the widest target, as a narrower one can split its blocks."""
    return max(target.block_height for target in targets_of(config))


def tap_unit_of(config: SearchConfig) -> TapUnit:
    """The units in which blocks lose taps: four channels at once where that suits every target, else single ones."""
    units = {target.tap_unit for target in targets_of(config)}
    return units.pop() if len(units) == 1 else TapUnit.TAP


def targets_of(config: SearchConfig) -> tuple[Target, ...]:
    """Of the devices, in their order. Raises ConfigError: a device cannot compute at the precision that it is asked."""
    targets = []
    for index, device in enumerate(config.devices):
        if not isinstance(device, LocalDevice):
            if device.target == "auto":
                raise ConfigError(
                    f"devices[{index}].target: it was not asked for yet; name one of {', '.join(TARGETS)}"
                )
            targets.append(TARGETS[device.target])
            continue
        try:
            targets.append(host_target(device.precision))
        except CompileError as error:
            raise ConfigError(f"devices[{index}].precision: {error}") from error
    return tuple(targets)
