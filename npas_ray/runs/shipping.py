"""The best candidate, made ready to leave: confirmed, trained in full, compiled with its weights, measured again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

from device_farm.compiler import TARGETS, compile_network
from device_farm.measurement.codec import measurement_to_json, replicated_to_json
from device_farm.measurement.finalists import Believed, Effort
from npas_ray.config import SearchConfig
from npas_ray.errors import NoFeasibleCandidate, RunError
from npas_ray.journal import Candidate
from npas_ray.networks.lowering import lower
from npas_ray.runs.directory import RunDirectory
from npas_ray.runs.evaluation import CANDIDATE_FAULTS
from npas_ray.runs.laboratory import Laboratory
from npas_ray.runs.progress import Progress
from npas_ray.runs.replication import believed_latencies, in_short, over_budget, to_json
from npas_ray.runs.setting import cache_dir, task_of
from npas_ray.runs.shipped import (
    ARCHITECTURE,
    ARTIFACT,
    MEASUREMENT,
    REPLICATES,
    SUMMARY,
    WEIGHTS,
    Shipped,
    replace_directory,
)
from npas_ray.search.policy import Status
from npas_ray.search.reward import Objective

# two seeds of one candidate differ by about a point, and the best of many is the luckiest of many
SEEDS_TO_BELIEVE = 3
FINALISTS = 3


def ship(config: SearchConfig, run: RunDirectory, *, lab: Laboratory, conductor: Any, progress: Progress) -> None:
    """Leaves the best candidate within the budgets in `run.best`, and a note "final" in the journal.

    Can be interrupted and called again: evaluations are kept, and `best/` is replaced as a whole or not at all.
    """
    import ray

    progress.phase("evaluating the best candidates again")
    winner = _winner(config, lab=lab, conductor=conductor, progress=progress)
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
    believed = _artifacts(new, winner, weights, lab=lab, effort=config.measurement.finalists.effort())
    summary = identity | {
        "ordinal": winner.ordinal,
        "search_accuracy": winner.accuracy,
        "search_latency_ms": winner.latency_ms,
        "validation_accuracy": evaluation["accuracy"],
        "test_accuracy": _test_accuracy(Shipped(new)),
        "latency_ms": {model: found.latency.latency_ms for model, found in believed.items()},
        "replicated": {model: replicated_to_json(found.latency) for model, found in believed.items()},
    }
    _write_json(new / SUMMARY, summary)
    replace_directory(run.best, new=new)
    ray.get(conductor.note.remote("final", summary))


def _winner(config: SearchConfig, *, lab: Laboratory, conductor: Any, progress: Progress) -> Candidate:
    """The best candidate that keeps the budgets in other sessions and on other phones, too; each has a journal's note.

    Raises NoFeasibleCandidate, FarmError.
    """
    import ray

    rejected: dict[str, str] = {}
    while (winner := confirm(lab, conductor, without=rejected)) is not None:
        graph = lower(lab.backbone, winner.architecture, block_height=lab.block_height, tap_unit=lab.tap_unit)
        effort = config.measurement.finalists.effort()
        over: str | None
        try:
            believed = believed_latencies(lab.farm, graph, models=lab.models, effort=effort)
        except CANDIDATE_FAULTS as error:  # a phone more, and it fails there
            believed, over = {}, f"{type(error).__name__}: {error}"
        else:
            over = over_budget(believed, lab.objective)
        latencies = {model: in_short(found) for model, found in believed.items()}
        finalist = {"key": winner.key, "ordinal": winner.ordinal, "rejected": over, "latencies": latencies}
        ray.get(conductor.note.remote("finalist", finalist))
        if over is None:
            return winner
        rejected[winner.key] = f"#{winner.ordinal}: {over}"
        progress.log(f"candidate #{winner.ordinal} is not shipped: measured again, {over}")
    raise NoFeasibleCandidate(
        "no candidate kept the budgets when it was measured again; the last: " + list(rejected.values())[-1]
    )


def confirm(lab: Laboratory, conductor: Any, *, without: Collection[str] = ()) -> Candidate | None:
    """The best candidate within the budgets whose accuracy several seeds agree on; None: none but those `without`.

    Evaluates the front runners with further seeds until the one in front has `SEEDS_TO_BELIEVE` of them; a candidate
    that was only lucky falls back on the way.
    """
    import ray

    while True:
        known = cast("list[Candidate]", ray.get(conductor.candidates.remote()))
        ranked = ranking([candidate for candidate in known if candidate.key not in without], lab.objective)
        if not ranked:
            return None
        if len(ranked[0].evaluations) >= SEEDS_TO_BELIEVE:
            return ranked[0]
        short = [candidate for candidate in ranked[:FINALISTS] if len(candidate.evaluations) < SEEDS_TO_BELIEVE]
        pending = {c.key: lab.train(c.architecture, seed=lab.seed + len(c.evaluations)) for c in short}
        for key, evaluation in pending.items():
            ray.get(conductor.trained.remote(key, dict(evaluation.result())))


def ranking(candidates: list[Candidate], objective: Objective) -> list[Candidate]:
    """Trained candidates within the budgets, best first: by mean accuracy, then speed, then age."""
    feasible = [c for c in candidates if c.status is Status.DONE and objective.feasible(c.latency_ms)]
    return sorted(feasible, key=lambda c: (-(c.accuracy or 0.0), sum(c.latency_ms.values()), c.ordinal))


def _artifacts(new: Path, winner: Candidate, packed: bytes, *, lab: Laboratory, effort: Effort) -> dict[str, Believed]:
    """Compiles and measures the network for every device model, in several sessions and on several phones."""
    from npas_ray.networks.deploying import deploy
    from npas_ray.training.trainer_actor import unpack

    network, masks = unpack(packed, lab.backbone, winner.architecture)
    graph, weights = deploy(
        network, lab.backbone, winner.architecture, masks, block_height=lab.block_height, tap_unit=lab.tap_unit
    )
    believed = believed_latencies(lab.farm, graph, models=lab.models, effort=effort, weights=weights)
    for model, found in believed.items():
        measurement = measurement_to_json(found.sessions[0])
        target = TARGETS[measurement["device"]["target"]]
        threads = measurement["device"].get("threads", 1)
        artifact = compile_network(
            graph, target=target, out_dir=new / model, cache_dir=cache_dir(), weights=weights, threads=threads
        )  # the kernels are in the cache, and the key is that of the measured one
        artifact.path.with_name(f"{artifact.path.name}.json").rename(new / model / f"{ARTIFACT}.json")
        artifact.path.rename(new / model / ARTIFACT)
        _write_json(new / model / MEASUREMENT, measurement)
        _write_json(new / model / REPLICATES, to_json(found))
    return believed


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
