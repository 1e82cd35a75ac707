"""Starts everything that a search needs on Ray: conductor, farm, trainers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from device_farm.compiler import host_target
from device_farm.fleet.config import FarmConfig
from device_farm.fleet.devices import LocalDevice
from device_farm.fleet.farm import Farm
from device_farm.measurement.codec import measurement_to_json
from device_farm.transport import cores
from npas_ray.config import SearchConfig
from npas_ray.journal import Journal
from npas_ray.networks.lowering import lower
from npas_ray.networks.operators import dense_architecture
from npas_ray.runs.directory import RunDirectory
from npas_ray.runs.laboratory import Laboratory
from npas_ray.runs.progress import Progress
from npas_ray.runs.ray_session import ray_session
from npas_ray.runs.setting import DENSE, backbone_of, dense_latencies, make_objective
from npas_ray.search.reward import Objective


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
        progress.phase("starting Ray")
        # a trial takes a sliver of a CPU, a trainer one; the rest only wait, or run for a moment
        with (
            ray_session(config.cluster.address, num_cpus=workers + 1),
            _trainers(config, run, workers=workers, progress=progress) as trainers,
            _farm(config, reserved=plan.reserved, progress=progress) as farm,
        ):
            objective = _objective(config, run, farm=farm)
            lab = Laboratory(
                backbone=backbone_of(config),
                block_height=block_height_of(config),
                models=config.models,
                objective=objective,
                epochs=config.training.epochs,
                seed=config.seed,
                trials_at_once=workers + len(config.devices),  # some train while others are measured
                farm=farm,
                trainers=trainers,
            )
            yield lab, _conductor(config, run, objective)
    finally:
        cores.release(plan)


def _workers(config: SearchConfig, cores_left: int) -> int:
    """How many trainers: as told, else one for every core that is left."""
    if config.training.workers != "auto":
        return config.training.workers
    if config.cluster.cpus != "auto":
        return config.cluster.cpus
    return max(1, cores_left)


def _here() -> Any:
    """Keeps an actor on this node, because the run's directory is on it."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def _conductor(config: SearchConfig, run: RunDirectory, objective: Objective) -> Any:
    import ray

    from npas_ray.runs.conductor_actor import ConductorActor

    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": _here()}
    return ray.remote(ConductorActor).options(**options).remote(run.path.resolve(), config, objective)


@contextmanager
def _trainers(config: SearchConfig, run: RunDirectory, *, workers: int, progress: Progress) -> Iterator[Any]:
    """A pool of trainers, all with the run's teacher. The first trains it, if it is not there yet."""
    import ray

    from npas_ray.training.trainer_actor import Trainer
    from npas_ray.training.trainer_pool import TrainerPool

    arguments = {"block_height": block_height_of(config), "task_seed": config.seed}
    names = [f"trainer-{config.name}-{index}" for index in range(workers)]
    trainers: list[Any] = []
    try:
        for name in names:
            actor = cast(Any, Trainer).options(name=name, scheduling_strategy=_here())
            trainers.append(actor.remote(backbone_of(config), str(run.teacher.resolve()), **arguments))
            if len(trainers) == 1:  # the others find what it leaves
                progress.phase("training the teacher")
                facts = ray.get(trainers[0].teacher.remote())
                progress.log(f"teacher: {facts['accuracy']:.1%} on the validation set, {facts['wall_s']:.0f} s")
        yield cast(Any, TrainerPool).remote(names)
    finally:
        for trainer in trainers:
            ray.kill(trainer)


@contextmanager
def _farm(config: SearchConfig, *, reserved: int | None, progress: Progress) -> Iterator[Farm]:
    progress.phase("starting the device farm")
    devices = tuple(
        LocalDevice(cpu=reserved if device.cpu == "auto" else device.cpu, model=device.model, num_cpus=0)
        for device in config.devices
    )
    workers = config.compilation.workers
    farm = Farm.start(
        FarmConfig(
            devices=devices,
            cache_dir=cache_dir(),
            compile_workers=1 if workers == "auto" else workers,
            protocol=config.measurement.protocol(),
            name=f"farm-{config.name}",
        )
    )
    try:
        yield farm
    finally:
        farm.stop()


def _objective(config: SearchConfig, run: RunDirectory, *, farm: Farm) -> Objective:
    """The objective, its relative budgets settled by the dense network, which is measured once in a run's life."""
    with run.writing(), Journal.open(run.journal) as journal:
        dense_ms = dense_latencies(journal)
        graph = lower(
            backbone_of(config), dense_architecture(backbone_of(config)), block_height=block_height_of(config)
        )
        for model in config.models:
            if model not in dense_ms:
                measurement = measurement_to_json(farm.measure(graph, model=model))
                journal.note(DENSE, {"model": model, "measurement": measurement})
                dense_ms[model] = measurement["latency_ms"]
    return make_objective(config, dense_ms)


def block_height_of(config: SearchConfig) -> int:
    """Filters that share a tap list: those of the widest target, as a narrower one can split its blocks."""
    return max(host_target().block_height for _ in config.devices)
