"""Starts everything that a search needs on Ray: conductor, farm, trainers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from device_farm.compiler import TARGETS
from device_farm.fleet import Farm, FarmConfig, LocalDevice
from device_farm.transport import cores
from npas_ray.config import SearchConfig
from npas_ray.runs.directory import RunDirectory
from npas_ray.runs.laboratory import Laboratory
from npas_ray.runs.progress import Progress
from npas_ray.runs.ray_session import LOCAL, ray_session
from npas_ray.runs.setting import backbone_of


def cache_dir() -> Path:
    """Where compiled kernels are kept between runs: $NPAS_CACHE_DIR, or npas in the user's cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("NPAS_CACHE_DIR") or Path(home) / "npas")


@contextmanager
def staff(config: SearchConfig, run: RunDirectory, progress: Progress) -> Iterator[tuple[Laboratory, Any]]:
    """A laboratory and the handle of its conductor, for the length of the with statement.

    Raises InfrastructureError, FarmError.
    """
    plan = cores.reserve()
    try:
        progress.log(plan.describe())
        workers = _workers(config, len(plan.others))
        # a trial takes a sliver of a CPU, a trainer one; compilers and the rest take none
        with ray_session(config.cluster.address, num_cpus=workers + 1):
            yield _hired(config, run, progress, workers=workers, reserved=plan.reserved)
    finally:
        cores.release(plan)


def _workers(config: SearchConfig, cores_left: int) -> int:
    wanted = config.training.workers
    if wanted != "auto":
        return wanted
    if config.cluster.address == LOCAL:
        return config.cluster.cpus if config.cluster.cpus != "auto" else max(1, cores_left)
    return 4


def _hired(
    config: SearchConfig, run: RunDirectory, progress: Progress, *, workers: int, reserved: int | None
) -> tuple[Laboratory, Any]:
    import ray

    from npas_ray.runs.conductor_actor import ConductorActor
    from npas_ray.training.trainer_actor import TrainerActor
    from npas_ray.training.trainer_pool import TrainerPool

    immortal = {"max_restarts": -1, "max_task_retries": -1}
    # the conductor writes into the run's directory, so it lives where the directory is: on this node
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    conductor = ray.remote(ConductorActor).options(num_cpus=0, scheduling_strategy=here, **immortal)
    conductor = conductor.remote(run.path.resolve(), config)
    progress.phase("starting the device farm")
    ...
