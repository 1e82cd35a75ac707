"""From a configuration to the pure objects that it describes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from device_farm.compiler import TARGETS, Target, host_target
from device_farm.compiler.sparsity import TapUnit
from device_farm.errors import CompileError
from npas_ray.config import LocalDevice, SearchConfig
from npas_ray.errors import ConfigError
from npas_ray.journal import Journal
from npas_ray.networks.backbone import BACKBONES, Backbone
from npas_ray.search.reward import Objective
from npas_ray.space.search_space import SearchSpace

# the journal's note with a measurement of the dense network
DENSE = "dense"


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


def make_space(config: SearchConfig) -> SearchSpace:
    """The search space, before a calibration leaves anything out. Raises SpaceError: a layer has no legal choice."""
    return SearchSpace.from_spec(backbone_of(config), config.space.spec())


def make_objective(config: SearchConfig, dense_ms: Mapping[str, float]) -> Objective:
    """What is maximised; guessing is right once in as many times as there are classes.

    `dense_ms` is what the dense network takes on each device model that has a budget relative to it.
    """
    objective = config.objective
    budgets_ms = dict(objective.budgets_ms)
    budgets_ms |= {model: share * dense_ms[model] for model, share in objective.budgets_of_dense.items()}
    return Objective(budgets_ms, alpha=objective.alpha, chance=1 / backbone_of(config).classes)


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
