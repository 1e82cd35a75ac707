"""The best candidate, made ready to leave: confirmed, trained in full, compiled with its weights, measured again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from device_farm.compiler import TARGETS, compile_network
from npas_ray.config import SearchConfig
from npas_ray.errors import RunError
from npas_ray.journal import Candidate
from npas_ray.runs.directory import RunDirectory
from npas_ray.runs.laboratory import Laboratory
from npas_ray.runs.progress import Progress
from npas_ray.runs.reach import trained_candidate
from npas_ray.runs.setting import cache_dir, task_of
from npas_ray.runs.shipped import ARCHITECTURE, ARTIFACT, MEASUREMENT, SUMMARY, WEIGHTS, Shipped, replace_directory
from npas_ray.search.hypervolume import nondominated
from npas_ray.search.policy import Status
from npas_ray.search.reward import Mode, Objective

# two seeds of one candidate differ by about a point, and the best of many is the luckiest of many
SEEDS_TO_BELIEVE = 3
SEEDS_OF_A_FRONT = 2
FINALISTS = 3


def ship(
    config: SearchConfig,
    run: RunDirectory,
    *,
    lab: Laboratory,
    conductor: Any,
    progress: Progress,
    chosen: int | None = None,
) -> None:
    """Leaves the best candidate within the budgets in `run.best`, and a note "final" in the journal.

    Of a front that is its compromise, see `ranking`; its other members are evaluated again as well, and `chosen`, the
    ordinal of any candidate, ships that one instead. Raises RunError if there is no such trained candidate.

    Can be interrupted and called again: evaluations are kept, and `best/` is replaced as a whole or not at all.
    """
    import ray

    progress.phase("evaluating the best candidates again")
    if chosen is not None:
        winner = trained_candidate(ray.get(conductor.candidates.remote()), chosen)
    else:
        if lab.objective.mode is Mode.FRONT:
            confirm_front(lab, conductor)
        winner = confirm(lab, conductor)
    identity = {"key": winner.key, "epochs": config.training.final_epochs, "seed": config.seed}
    if _identity_of_shipped(run) == identity:
        return
    progress.phase(f"training candidate #{winner.ordinal} in full")
    evaluation, weights = lab.train_in_full(winner.architecture, epochs=config.training.final_epochs)
    progress.phase("compiling and measuring what is shipped")
    new = run.path / "best.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    (new / WEIGHTS).write_bytes(weights)
    architecture = {
        "backbone": config.space.backbone,
        "layers": winner.architecture.to_json(),
        "key": winner.key,
        "block_height": lab.block_height,
        "tap_unit": lab.tap_unit,
        "task": {"name": config.task.name} | task_of(config),
    }
    _write_json(new / ARCHITECTURE, architecture)
    latency_ms = _artifacts(new, winner, weights, lab=lab)
    summary = identity | {
        "ordinal": winner.ordinal,
        "search_accuracy": winner.accuracy,
        "search_latency_ms": winner.latency_ms,
        "validation_accuracy": evaluation["accuracy"],
        "test_accuracy": _test_accuracy(Shipped(new)),
        "latency_ms": latency_ms,
    }
    _write_json(new / SUMMARY, summary)
    replace_directory(run.best, new=new)
    ray.get(conductor.note.remote("final", summary))


def confirm(lab: Laboratory, conductor: Any) -> Candidate:
    """The best candidate within the budgets whose accuracy several seeds agree on.

    Evaluates the front runners with further seeds until the one in front has `SEEDS_TO_BELIEVE` of them; a candidate
    that was only lucky falls back on the way.
    """
    import ray

    while True:
        known = cast("list[Candidate]", ray.get(conductor.candidates.remote()))
        ranked = ranking(known, lab.objective)
        if len(ranked[0].evaluations) >= SEEDS_TO_BELIEVE:
            return ranked[0]
        short = [candidate for candidate in ranked[:FINALISTS] if len(candidate.evaluations) < SEEDS_TO_BELIEVE]
        pending = {c.key: lab.train(c.architecture, seed=lab.seed + len(c.evaluations)) for c in short}
        for key, evaluation in pending.items():
            ray.get(conductor.trained.remote(key, dict(evaluation.result())))


def ranking(candidates: list[Candidate], objective: Objective) -> list[Candidate]:
    """Trained candidates within the budgets, best first: by mean accuracy, then speed, then age.

    Of a front: by how large a share of the box up to the reference a candidate dominates alone (`Objective.reward`).
    That is a compromise: neither the slowest nor the smallest has a large one.
    """

    def goodness(candidate: Candidate) -> float:
        if objective.mode is Mode.BEST:
            return candidate.accuracy or 0.0
        return objective.reward(candidate.observation()) or 0.0

    feasible = [c for c in candidates if c.status is Status.DONE and objective.keeps(c.observation())]
    return sorted(feasible, key=lambda c: (-goodness(c), sum(c.latency_ms.values()), c.ordinal))


def confirm_front(lab: Laboratory, conductor: Any) -> None:
    """Evaluates the members of the front again until each has `SEEDS_OF_A_FRONT` seeds.

    A member that was only lucky falls behind the front, and what it hid comes forward and is evaluated too.
    """
    import ray

    while True:
        known = cast("list[Candidate]", ray.get(conductor.candidates.remote()))
        short = [c for c in front_members(known, lab.objective) if len(c.evaluations) < SEEDS_OF_A_FRONT]
        if not short:
            return
        pending = {c.key: lab.train(c.architecture, seed=lab.seed + len(c.evaluations)) for c in short}
        for key, evaluation in pending.items():
            ray.get(conductor.trained.remote(key, dict(evaluation.result())))


def front_members(candidates: list[Candidate], objective: Objective) -> list[Candidate]:
    """The trained candidates that no other one beats in accuracy and every axis."""
    points = {c.key: objective.point(c.observation()) for c in candidates if c.status is Status.DONE}
    known = [(c, point) for c in candidates if (point := points.get(c.key)) is not None]
    kept = nondominated([point for _, point in known])
    return [candidate for (candidate, _), on in zip(known, kept, strict=True) if on]


def _artifacts(new: Path, winner: Candidate, packed: bytes, *, lab: Laboratory) -> dict[str, float]:
    """Compiles and measures the network for every device model; latency_ms by model."""
    from npas_ray.networks.deploying import deploy
    from npas_ray.training.trainer_actor import unpack

    network, masks = unpack(packed, lab.backbone, winner.architecture)
    graph, weights = deploy(
        network, lab.backbone, winner.architecture, masks, block_height=lab.block_height, tap_unit=lab.tap_unit
    )
    latency_ms = {}
    for model in lab.models:
        measurement = lab.measure_deployed(graph, weights, model)
        target = TARGETS[measurement["device"]["target"]]
        threads = measurement["device"].get("threads", 1)
        artifact = compile_network(
            graph, target=target, out_dir=new / model, cache_dir=cache_dir(), weights=weights, threads=threads
        )  # the kernels are in the cache, and the key is that of the measured one
        artifact.path.with_name(f"{artifact.path.name}.json").rename(new / model / f"{ARTIFACT}.json")
        artifact.path.rename(new / model / ARTIFACT)
        _write_json(new / model / MEASUREMENT, measurement)
        latency_ms[model] = float(measurement["latency_ms"])
    return latency_ms


def _test_accuracy(shipped: Shipped) -> float:
    from npas_ray.training.optimise import accuracy

    return accuracy(shipped.network(), shipped.task().test)


def _identity_of_shipped(run: RunDirectory) -> Mapping[str, Any] | None:
    """What decides whether best/ is up to date; None if nothing whole lies there."""
    try:
        summary = Shipped(run.best).summary
        return {name: summary[name] for name in ("key", "epochs", "seed")}
    except (RunError, KeyError):
        return None


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
