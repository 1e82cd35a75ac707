"""Starts everything that a search needs on Ray: conductor, farm, trainers. Imports Ray: call prepare_ray() before."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

from device_farm.fleet.config import SENTINEL, FarmConfig
from device_farm.fleet.farm import Farm
from device_farm.measurement.codec import measurement_to_json
from device_farm.transport import cores
from npas_ray.config import LocalDevice, SearchConfig
from npas_ray.journal import Journal
from npas_ray.networks.lowering import lower
from npas_ray.networks.operators import dense_architecture
from npas_ray.runs.calibrated import check_calibrations
from npas_ray.runs.devices import farm_devices, phone_count
from npas_ray.runs.directory import RunDirectory
from npas_ray.runs.laboratory import Laboratory
from npas_ray.runs.progress import Progress
from npas_ray.runs.ray_session import LOCAL, ray_session
from npas_ray.runs.reach import check_reach
from npas_ray.runs.setting import (
    DENSE,
    FRONT,
    SMALLEST,
    backbone_of,
    block_height_of,
    cache_dir,
    dense_latencies,
    front_note,
    make_objective,
    tap_unit_of,
)
from npas_ray.runs.trainers import Trainers
from npas_ray.runs.warm_start import settle_warm_start
from npas_ray.search.reward import Mode, Objective
from npas_ray.space.choices import Architecture


def reserve_cores(config: SearchConfig, progress: Progress) -> cores.CorePlan:
    """Cores for this machine as a device, if it is one; `cores.release` gives them back."""
    threads = [device.threads for device in config.devices if isinstance(device, LocalDevice)]
    if not threads:
        allowed = frozenset(os.sched_getaffinity(0))
        return cores.CorePlan(allowed, reserved=None, others=allowed, siblings_idle=True)
    plan = cores.reserve(max(threads))
    progress.log(plan.describe())
    return plan


@contextmanager
def staff(config: SearchConfig, run: RunDirectory, progress: Progress) -> Iterator[tuple[Laboratory, Any]]:
    """A laboratory and the handle of its conductor, for the length of the with statement.

    Raises InfrastructureError, FarmError.
    """
    plan = reserve_cores(config, progress)
    try:
        workers = _workers(config, len(plan.others))
        measuring = sum(isinstance(device, LocalDevice) for device in config.devices) + phone_count(config)
        progress.phase("starting Ray" if config.cluster.address == LOCAL else "connecting to Ray")
        # a trainer takes one CPU, a trial a sliver; the rest only wait, or run for a moment
        with ray_session(config.cluster.address, num_cpus=workers + 1), ExitStack() as stack:
            if config.cluster.address != LOCAL:
                workers = _workers_there(config, workers, progress)
            trainers = stack.enter_context(Trainers(config, run, workers=workers))
            farm = stack.enter_context(
                farm_of(
                    config,
                    reserved=plan.measuring,
                    progress=progress,
                    journal=run.farm_journal,
                    client=run.name,
                )
            )
            if config.farm is not None:
                measuring = sum(d.facts is not None and d.facts.model in config.models for d in farm.devices())
            objective = _objective(config, run, farm=farm, progress=progress)
            settle_warm_start(config, run, check_calibrations(config, run)[0], objective, progress)
            lab = Laboratory(
                backbone=backbone_of(config),
                block_height=block_height_of(config),
                tap_unit=tap_unit_of(config),
                models=config.models,
                objective=objective,
                epochs=config.training.epochs,
                seed=config.seed,
                trials_at_once=workers + measuring,  # some train while others are measured
                farm=farm,
                trainers=trainers.pool(progress),
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


def _workers_there(config: SearchConfig, workers: int, progress: Progress) -> int:
    """On a cluster that others use, too: as told, else at most half of what is free, as another search may come."""
    import ray

    free = int(cast(Any, ray).available_resources().get("CPU", 0))
    if config.training.workers == "auto" and config.cluster.cpus == "auto":
        workers = max(1, min(workers, free // 2))
    if free < workers:
        progress.log(
            f"the Ray cluster has {free} CPUs free, this search wants {workers} (training.workers): it waits for them"
        )
    return workers


def _conductor(config: SearchConfig, run: RunDirectory, objective: Objective) -> Any:
    import ray

    from npas_ray.runs.conductor_actor import ConductorActor
    from npas_ray.runs.placement import here

    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here()}
    return ray.remote(ConductorActor).options(**options).remote(run.path.resolve(), config, objective)


@contextmanager
def farm_of(
    config: SearchConfig,
    *,
    reserved: tuple[int, ...],
    progress: Progress,
    compile_workers: int = 1,
    journal: Path | None = None,
    client: str = "",
) -> Iterator[Farm]:
    """The device farm of a configuration, for the length of the with statement. Raises FarmError.

    One that it shares with others is only asked, as `client`; it compiles and measures in its own way. Raises
    InfrastructureError if it is not there.

    `compile_workers` is how many there are where the configuration leaves it to us. With phones every measurement
    stands beside a sentinel, and what happened to each phone is in `journal`.
    """
    if config.farm is not None:
        from npas_ray.runs.shared_farm import find_farm

        address = config.cluster.address
        yield find_farm(config.farm, address=address, client=client)
        return
    progress.phase("starting the device farm")
    devices, hosts = farm_devices(config, reserved=reserved)
    workers = config.compilation.workers
    farm = Farm.start(
        FarmConfig(
            devices=devices,
            hosts=hosts,
            journal=journal if hosts else None,
            sentinel=SENTINEL if hosts else None,
            rules=config.measurement.rules() if hosts else None,
            cache_dir=cache_dir(),
            compile_workers=compile_workers if workers == "auto" else workers,
            protocol=config.measurement.protocol(),
            name=f"farm-{config.name}",
        )
    )
    try:
        yield farm
    finally:
        farm.stop()


def _objective(config: SearchConfig, run: RunDirectory, *, farm: Farm, progress: Progress) -> Objective:
    """The objective, its relative budgets settled by the dense network, which is measured once in a run's life.

    Raises NoFeasibleCandidate if a budget is surely out of reach.
    """
    space, _ = check_calibrations(config, run)
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
        objective = make_objective(config, dense_ms)
        if objective.mode is Mode.FRONT and not journal.events(FRONT):
            journal.note(FRONT, front_note(config, objective))
        known: dict[tuple[str, str], Mapping[str, Any]] = {
            (data["key"], data["model"]): data["measurement"] for _, _, _, data in journal.events(SMALLEST)
        }

        def measure(architecture: Architecture, model: str) -> Mapping[str, Any]:
            if (architecture.key, model) not in known:
                graph = lower(backbone_of(config), architecture, block_height=block_height_of(config))
                measurement = measurement_to_json(farm.measure(graph, model=model))
                journal.note(SMALLEST, {"key": architecture.key, "model": model, "measurement": measurement})
                known[architecture.key, model] = measurement
            return known[architecture.key, model]

        height = block_height_of(config)
        for warning in check_reach(space, objective, block_height=height, dense_ms=dense_ms, measure=measure):
            progress.log(warning)
    return objective
